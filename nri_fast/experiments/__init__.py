"""The paper's experiments and those beyond it, each as one command: ``nri-fast experiment NAME``.

An experiment is a list of parts and a report. A part is worked off once and leaves a JSON file, so that a killed
experiment goes on where it was; training inside a part goes on from its checkpoints. The report makes a table, a figure
and a result file of the parts.
"""

from __future__ import annotations

# Name of an experiment -> what it shows. Its module has the same name and an Experiment called EXPERIMENT; it is
# imported when it runs, so that the command line's help does not wait for torch.
EXPERIMENTS: dict[str, str] = {
    "accuracy": "edges right and forecast errors on systems never seen, for every simulated family",
    "calibration": "whether probabilities of edges mean what they say",
    "data-efficiency": "edges right over the number of systems to learn from",
    "mega-graph": "all systems in one graph against one system at a time",
    "mocap": "a walking person's joints, forecast by the protocol of NRI and dNRI (needs --data)",
    "noise": "edges right over observation noise",
    "platoons": "real cars in a row: who follows whom, beside correlation and Granger causality (needs --data)",
    "proposals": "a network that predicts graphs: alone, and as the proposals of a chain",
    "split": "graphs whose shape was never seen in training",
    "transfer": "modules learned on five entities judge ten",
    "types": "two types of entities and of edges together; three types of edges",
    "unseen": "entities that nobody observed, found from how the others move",
    "vehicles": "real vehicles: forecasts with and without relations, and what edges mean (needs --data)",
}
