"""Figures show what they are given, with labels and units, for any number of types and entities."""

import io

import numpy as np
import pytest
import torch
from matplotlib.patches import FancyArrowPatch

import nri_fast
from nri_fast import plot
from nri_fast.calibration import reliability
from nri_fast.history import History
from nri_fast.plot.history import _running_mean


@pytest.fixture(scope="module")
def random():
    return np.random.default_rng(1)


def graph_of(random, systems=3, entities=5, types=2):
    adjacency = random.integers(types, size=(systems, entities, entities)).astype(np.uint8)
    adjacency[:, range(entities), range(entities)] = 0
    return adjacency


def legend(figure):
    return [text.get_text() for owner in [figure, *figure.axes] for found in _legends(owner) for text in found.texts]


def _legends(owner):
    return owner.legends if hasattr(owner, "legends") else filter(None, [owner.get_legend()])


def draws(figure):
    """The figure can be written as a picture."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=30)
    return picture.getvalue().startswith(b"\x89PNG")


def arrows(axes):
    return [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]


def crosses(axes):
    return [line for line in axes.lines if line.get_marker() == "x"]


def test_relabelled_types_have_the_names_of_the_truth():
    adjacency = torch.tensor([[[0, 2, 1], [1, 0, 0], [2, 2, 0]]], dtype=torch.uint8)
    found = plot.relabel(adjacency, [2, 0, 1])
    assert found.tolist() == [[[0, 1, 0], [0, 0, 2], [1, 1, 0]]]


def test_graphs_mark_every_wrong_edge(random):
    true = graph_of(random)
    inferred = true.copy()
    inferred[1, 0, 3] = 1 - inferred[1, 0, 3]
    inferred[1, 4, 2] = 1 - inferred[1, 4, 2]
    figure = plot.graphs(inferred, true, None, ["none", "spring"], silent=0)
    assert [len(arrows(axes)) for axes in figure.axes] == [20] * 6
    assert [len(crosses(axes)) for axes in figure.axes] == [0, 0, 0, 0, 2, 0]
    assert [axes.get_title() for axes in figure.axes[:3]] == ["system 0", "system 1", "system 2"]
    assert [figure.axes[i].get_ylabel() for i in (0, 3)] == ["true", "inferred"]
    assert legend(figure) == ["none", "spring", "wrong type"]
    assert draws(figure)


def test_a_cross_lies_on_its_own_arc():
    inferred, true = np.zeros((1, 2, 2), int), np.zeros((1, 2, 2), int)
    inferred[0, 0, 1] = 1
    figure = plot.graphs(inferred, true)
    axes = figure.axes[1]
    (cross,) = crosses(axes)
    arc = arrows(axes)[0].get_path().vertices  # from entity 0, on top, down to entity 1: it bends to one side
    assert abs(arc[:, 0].sum()) > 0.1
    assert np.sign(cross.get_xdata()[0]) == np.sign(arc[:, 0].sum())


def test_strength_is_probability(random):
    inferred = graph_of(random, systems=1)
    probability = np.full(inferred.shape, 0.5)
    probability[0, 0, 1] = 1.0
    drawn = arrows(plot.graphs(inferred, None, probability).axes[0])
    widths = [patch.get_linewidth() for patch in drawn]
    assert widths[0] > max(widths[1:])
    assert drawn[0].get_alpha() > drawn[1].get_alpha()


def test_graphs_of_three_types_ten_entities_and_no_labels(random):
    inferred = torch.from_numpy(graph_of(random, systems=2, entities=10, types=3))
    probability = torch.rand(inferred.shape)
    figure = plot.graphs(inferred, None, probability)
    assert [len(arrows(axes)) for axes in figure.axes] == [90, 90]
    assert legend(figure) == ["type 0", "type 1", "type 2"]
    assert draws(figure)


@pytest.mark.parametrize("shape", [(2, 5, 4), (5, 5)])
def test_graphs_that_are_none(shape):
    with pytest.raises(ValueError, match=r"inferred: expected \[systems, N, N\]"):
        plot.graphs(np.zeros(shape, np.uint8))


def test_graphs_that_do_not_fit(random):
    with pytest.raises(ValueError, match="true: expected the shape of inferred"):
        plot.graphs(graph_of(random), graph_of(random, entities=4))


def test_trajectories_show_the_recording_and_the_forecast(random):
    recorded = random.normal(size=(5, 12, 3, 4))
    forecast = recorded[:, 3:11] * 100  # a forecast that runs away
    figure = plot.trajectories(recorded, forecast, 2, unit="m")
    assert len(figure.axes) == 5
    axes = figure.axes[4]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("x (m)", "y (m)", "system 4")
    assert len(axes.lines) == 3 * 3  # path, forecast and start of each entity
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), [recorded[4, 2, 0, 0], *forecast[4, :, 0, 0]])
    assert np.ptp(axes.get_xlim()) < 2 * np.ptp(recorded[4, ..., :2])
    assert legend(figure) == ["recorded", "forecast, 8 steps from the dot on"]
    assert draws(figure)


def test_trajectories_without_a_plane_run_over_steps(random):
    recorded = torch.from_numpy(random.normal(size=(1, 12, 10, 1)))
    figure = plot.trajectories(recorded, recorded[:, 1:5], feature_names=("phase",), unit="rad")
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("step", "phase (rad)")
    assert draws(figure)


def test_trajectories_that_do_not_fit(random):
    recorded = random.normal(size=(2, 12, 3, 4))
    with pytest.raises(ValueError, match="recorded: expected"):
        plot.trajectories(recorded[..., :3])
    with pytest.raises(ValueError, match="forecast: expected"):
        plot.trajectories(recorded, recorded[:, :, :2])


def history_of(steps, metropolis=False):
    values = [1.0 + 1 / (step + 1) for step in range(steps)]
    zeros = [0.0] * steps
    return History(list(range(steps)), values, values, zeros if metropolis else values, values,
                   values if metropolis else zeros)  # fmt: skip


@pytest.mark.parametrize(
    ("metropolis", "expected"),
    [
        (False, ["energy\n(robust, log)", "temperature", "robust scale $s^2$", "learning rate"]),
        (True, ["energy", "temperature", "learning rate", "accepted share"]),
    ],
)
def test_training_shows_the_curves_that_a_run_has(metropolis, expected):
    figure = plot.training(history_of(300, metropolis))
    assert [axes.get_ylabel() for axes in figure.axes] == expected
    assert figure.axes[-1].get_xlabel() == "gradient step"
    assert draws(figure)


@pytest.mark.parametrize("steps", [0, 1, 250])
def test_training_with_accuracy_and_polish(steps):
    figure = plot.training(history_of(steps), [1, 5], [0.5, 0.75], polish_from=steps // 2)
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [50, 75])
    assert "%" in figure.axes[0].get_ylabel()
    assert draws(figure)


def test_running_means_keep_straight_lines():
    line = np.linspace(3, 5, 500)
    np.testing.assert_allclose(_running_mean(line), line)


@pytest.fixture(scope="module")
def run():
    data = nri_fast.simulate("springs", 3, entities=3, steps=12)
    return nri_fast.train(
        data, settings=nri_fast.Settings(steps=2, polish_steps=0, edge_types=3, silent=True), progress=False
    )


def test_laws_have_a_curve_for_each_type_and_each_truth(run):
    distances = np.linspace(0.1, 2, 7)
    figure = plot.laws(run, distances, 3, ["none", "weak", "strong"], {"truth": lambda r: 0.1 * r})
    assert legend(figure) == ["learned: none", "learned: weak", "learned: strong", "truth"]
    assert "recorded units" in figure.axes[0].get_xlabel()
    assert plot.law_curves(run, torch.from_numpy(distances), 3).shape == (3, 7)
    assert draws(figure)


def test_a_silent_type_pulls_nobody(run):
    np.testing.assert_allclose(plot.law_curves(run, [0.5, 1.0], 3)[0], 0, atol=1e-6)


def test_laws_need_a_plane():
    data = nri_fast.simulate("kuramoto", 3, entities=3, steps=12)
    run = nri_fast.train(data, settings=nri_fast.Settings(steps=1, polish_steps=0), progress=False)
    with pytest.raises(ValueError, match="x, y, vx and vy"):
        plot.law_curves(run, [1.0])


def test_confusion_counts_true_types_in_rows():
    true, inferred = np.zeros((1, 3, 3), int), np.zeros((1, 3, 3), int)
    true[0, 0, 1] = true[0, 1, 0] = inferred[0, 0, 1] = 1
    figure = plot.confusion(inferred, true, ["none", "spring"])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["100.0 %\n4", "0.0 %\n0", "50.0 %\n1", "50.0 %\n1"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("inferred type", "true type")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["none", "spring"]
    assert draws(figure)


def test_confusion_of_three_types_ten_entities(random):
    assert draws(plot.confusion(graph_of(random, 2, 10, 3), graph_of(random, 2, 10, 3)))


def test_reliability_lies_where_it_was_measured():
    probability, true = np.zeros((1, 3, 3, 2)), np.zeros((1, 3, 3), int)
    probability[..., 0], probability[..., 1] = 0.9, 0.1
    true[0, 0, 1] = true[0, 1, 2] = true[0, 2, 0] = 1
    figure = plot.reliability(
        {"charged": reliability(probability, true), "empty": reliability(probability[:0], true[:0])}
    )
    line = figure.axes[0].lines[0]
    np.testing.assert_allclose([line.get_xdata(), line.get_ydata()], [[0.9], [0.5]])
    assert legend(figure)[0] == "charged: expected calibration error 0.4000"
    assert draws(figure)


def test_curves_run_through_the_means_of_repetitions():
    figure = plot.curves({"a": [(10, 1.0), (1, 4.0), (10, 3.0)], "b": []}, "systems", "edges (%)", x_log=True)
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[1, 4], [10, 2]])
    assert len(axes.lines[1].get_xdata()) == 3
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()) == ("systems", "edges (%)", "log")
    assert legend(figure) == ["a", "b"]
    assert draws(figure)


def test_dots_stand_by_category():
    figure = plot.dots({"springs": {"edges": [99.0, 97.0], "entities": []}, "charged": {"edges": [90.0]}}, "right (%)")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["springs", "charged"]
    assert legend(figure) == ["edges", "entities"]
    bars = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_marker() == "None"]
    assert [float(bar.get_ydata()[0]) for bar in bars] == [98.0, 90.0]
    assert draws(figure)


def test_smaller_systems_are_drawn_without_their_padding(random):
    sizes = torch.tensor([5, 3, 1])
    inferred = graph_of(random)
    true = inferred.copy()
    true[1, 3, 4] = 1 - true[1, 3, 4]  # behind the second system's last entity
    figure = plot.graphs(inferred, true, sizes=sizes)
    assert [len(arrows(axes)) for axes in figure.axes] == [20, 6, 0] * 2
    assert sum(len(crosses(axes)) for axes in figure.axes) == 0
    assert draws(figure)
    recorded = random.normal(size=(3, 12, 5, 4))
    recorded[1, :, 3:] = 1000.0
    figure = plot.trajectories(recorded, recorded[:, 3:8], 2, sizes=sizes)
    assert [len(axes.lines) for axes in figure.axes] == [15, 9, 3]
    assert np.ptp(figure.axes[1].get_xlim()) < 20
    assert draws(figure)
    figure = plot.confusion(inferred, true, sizes=sizes)
    assert sum(int(text.get_text().split("\n")[1]) for text in figure.axes[0].texts) == 26
    for wrong in ([5, 3], [5, 3, 6]):
        with pytest.raises(ValueError, match="sizes: expected 3 numbers from 0 to 5"):
            plot.graphs(inferred, sizes=np.array(wrong))
