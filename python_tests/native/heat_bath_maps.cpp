// The plain functions of the fused heat bath: tiles, layouts and schedules, each against its definition by brute force.
// heat_bath_maps NAME runs one check; without a name, it lists them.
#include <algorithm>

#include "heat_bath_checks.h"

namespace {

// Every receiver, by its system and part, is in one tile with each transition and node type, and in no other.
void check_tiles() {
  for (const HeatBathCut& cut : {HeatBathCut{7, 3, 1, 5, 2, 1}, HeatBathCut{4, 1, 3, 6, 6, 2},
                                 HeatBathCut{1, 1, 1, 1, 1, 3}, HeatBathCut{5, 5, 1, 3, 1, 1}}) {
    std::multiset<std::vector<int64_t>> seen;
    for (int64_t index = 0; index < cut.tiles(); ++index) {
      const HeatBathTile tile = tile_of(index, cut);
      EXPECT(tile.first_system < tile.end_system && tile.end_system - tile.first_system <= cut.together);
      EXPECT(tile.first_transition < tile.end_transition);
      EXPECT(tile.end_transition - tile.first_transition <= cut.each);
      for (int64_t b = tile.first_system; b < tile.end_system; ++b) {
        for (int64_t l = tile.first_transition; l < tile.end_transition; ++l) {
          seen.insert({b, tile.part, l, tile.node_type});
        }
      }
    }
    EXPECT(static_cast<int64_t>(seen.size()) == cut.systems * cut.parts * cut.transitions * cut.node_types);
    EXPECT(std::set<std::vector<int64_t>>(seen.begin(), seen.end()).size() == seen.size());
    EXPECT((*seen.rbegin() ==
            std::vector<int64_t>{cut.systems - 1, cut.parts - 1, cut.transitions - 1, cut.node_types - 1}));
  }
  const HeatBathCut many{int64_t{1} << 31, 1, 4, 100, 1, 2};  // more than 2^32 of them
  const HeatBathTile last = tile_of(many.tiles() - 1, many);
  EXPECT(last.end_system == int64_t{1} << 31 && last.part == 3 && last.end_transition == 100 && last.node_type == 1);
}

void check_parts() {
  for (int64_t count = 0; count <= 40; ++count) {
    for (int64_t parts = 1; parts <= 45; ++parts) {
      EXPECT(first_of_part(count, 0, parts) == 0 && first_of_part(count, parts, parts) == count);
      for (int64_t p = 0; p < parts; ++p) {
        const int64_t size = first_of_part(count, p + 1, parts) - first_of_part(count, p, parts);
        EXPECT(size >= 0 && size <= (count + parts - 1) / parts);
      }
    }
  }
}

void check_ranges() {
  for (int most = 16; most <= kPassRows; most += 16) {
    for (const int rows : {1, 15, 16, 17, 127, 128, 129, 500, 4097, 1 << 30}) {
      int next = 0;
      for (int n = 0; n < count_passes(rows, most); ++n) {
        const RowRange range = nth_range(n, rows, most);
        EXPECT(range.first == next && range.rows > 0 && range.rows <= most && range.first % 16 == 0);
        next += range.rows;
      }
      EXPECT(next == rows);
    }
  }
}

// The projection reads the columns of messages, all of them, and of what follows only what meets zeros: the padding of
// the messages.
void check_projection() {
  for (const FusedLibrary& library : libraries()) {
    const FusedLayer layer = projection_layer(library), &whole = library.node.layer[0];
    const int columns = layer.words() * columns_of_word(library.precision);
    EXPECT(layer.outputs == whole.outputs && layer.first == whole.first && layer.out == whole.out);
    EXPECT(columns >= library.message && layer.words() <= whole.words());
    EXPECT(columns - library.message < kChunkWords * columns_of_word(library.precision));
    for (int c = 0; c < library.message; ++c) {
      EXPECT(column_of(whole, c).part == Part::whole && column_of(whole, c).input == c);
    }
    if (library.edge.modules > 0) EXPECT(columns <= library.edge.layer[library.edge.layers - 1].outputs);
  }
}

// The chunks that a cursor visits are those of the rounds' stages, in the order of the kernel's loops.
void check_cursor() {
  for (const FusedLibrary& library : libraries()) {
    const FusedLayer projection = projection_layer(library);
    for (const HeatBathSchedule& schedule :
         {schedule_of(library, 5, 2, 80, 64, false), schedule_of(library, 4, 4, 3, 16, true),
          schedule_of(library, 1, 1, 700, 128, false), schedule_of(library, 3, 1, 0, 32, true)}) {
      HeatBathCursor cursor;
      cursor.begin(library, &schedule, projection.chunks, schedule.rounds());
      const auto expect_layer = [&](int64_t first, const FusedLayer& layer) {
        for (int chunk = 0; chunk < layer.chunks; ++chunk) {
          EXPECT(cursor.steps > 0);
          EXPECT(cursor.outputs == layer.outputs);
          EXPECT(cursor.word == first + layer.first + packed_place(layer, 0, chunk * kChunkWords));
          EXPECT(cursor.word * 4 % 16 == 0);
          cursor.next(library, &schedule, projection.chunks);
        }
      };
      for (int round = 0; round < schedule.rounds(); ++round) {
        const int transitions = schedule.transitions_of(round);
        for (int m = 0; m < library.edge.modules; ++m) {
          for (int p = 0; p < count_passes(transitions * schedule.messages(m), schedule.pass_rows); ++p) {
            for (const FusedLayer* layer : layers_of(library.edge)) expect_layer(library.edge.word_of(m), *layer);
            expect_layer(library.node.word_of(schedule.module), projection);
          }
        }
        for (int p = 0; p < count_passes(transitions * schedule.rows, schedule.pass_rows); ++p) {
          for (int l = 1; l < library.node.layers; ++l) {
            expect_layer(library.node.word_of(schedule.module), library.node.layer[l]);
          }
        }
      }
      EXPECT(cursor.steps == 0);
    }
    const HeatBathSchedule nothing = schedule_of(library, 0, 0, 16, 16, false);
    EXPECT(nothing.rounds() == 0);
    HeatBathCursor cursor;
    cursor.begin(library, &nothing, projection.chunks, nothing.rounds());
    EXPECT(cursor.steps == 0);
  }
}

void check_shared_memory() {
  for (const FusedLibrary& library : libraries()) {
    for (const HeatBathShape& shape : {HeatBathShape{1, 0, 1, 16, 0, 1}, HeatBathShape{5, 20, 12, 64, 4, 100},
                                       HeatBathShape{128, 1024, 128, 128, 12, 700}}) {
      const HeatBathLayout at = heat_bath_layout(library, shape);
      const int modules = library.edge.modules;
      const std::vector<std::pair<int, int64_t>> arrays = {
          {at.activations, int64_t{4} * shape.rows * at.stride},
          {at.ring, int64_t{4} * ring_stages(library.widest) * library.widest * kChunkWords},
          {at.projections, int64_t{4} * shape.room * at.width},
          {at.sender_place, 8 * shape.rows},
          {at.receiver_place, 8 * shape.rows},
          {at.first_state, 8 * shape.receivers},
          {at.first_start, 8 * shape.receivers},
          {at.first_node, 8 * shape.receivers},
          {at.first_edge, 8 * shape.receivers},
          {at.first_row, 8 * shape.receivers},
          {at.entities, 4 * shape.receivers},
          {at.local, 4 * shape.receivers},
          {at.row_begin, 4 * (shape.receivers + 1)},
          {at.scale, 4 * shape.receivers},
          {at.sender, 4 * shape.edges},
          {at.transition, 4 * shape.transitions},
          {at.schedule, static_cast<int64_t>(sizeof(HeatBathSchedule))},
          {at.counts, 12},
          {at.in_begin, 2 * (shape.receivers + 1)},
          {at.free, 2 * shape.receivers},
          {at.message, int64_t{2} * shape.edges * modules},
          {at.edge, int64_t{2} * shape.edges * modules},
          {at.unit, 2 * shape.rows},
          {at.count, 2 * shape.rows},
          {at.leading, 2 * shape.rows},
          {at.term, int64_t{2} * shape.rows * shape.terms},
          {at.receiver, shape.edges},
          {at.type, shape.edges}};
      int64_t end = 0;
      for (const auto& [begin, bytes] : arrays) {
        EXPECT(begin >= end && begin % 16 == 0);
        end = begin + bytes;
      }
      EXPECT(end <= at.bytes);
      EXPECT(at.width >= library.node.layer[0].out && at.width % 16 == 0 && at.width <= kThreads);
      EXPECT(at.stride >= library.features);
      EXPECT(4 * 16 * at.stride >= 4 * 2 * kMostReceivers);  // while receivers are read
      for (const FusedModule* module : {&library.edge, &library.node}) {
        for (const FusedLayer* layer : layers_of(*module)) {
          EXPECT(layer->words() <= at.stride);
          EXPECT(layer->outputs / columns_of_word(library.precision) <= at.stride);
        }
      }
    }
  }
}

// What is planned fits the device, has room for a transition of any tile, and takes every receiver of the run.
void check_plan() {
  for (const FusedLibrary& library : libraries()) {
    for (const int64_t bytes : {232448, 166912, 101376}) {
      for (const HeatBathSizes& some : sizes()) {
        const HeatBathPlan plan = plan_heat_bath(library, some, 132, bytes);
        const HeatBathShape& shape = plan.shape;
        const HeatBathCut& cut = plan.cut;
        EXPECT((shape.rows > 0) == fits(scoring_costs(library), some, bytes));
        if (some.nodes <= 10 && bytes == 232448) EXPECT(shape.rows > 0);
        if (shape.rows == 0) continue;
        EXPECT(heat_bath_layout(library, shape).bytes <= bytes);
        EXPECT(shape.rows % 16 == 0 && shape.rows <= kPassRows);
        EXPECT(shape.receivers <= kMostReceivers && shape.edges <= kMostIncoming);
        EXPECT(shape.transitions == cut.each && cut.each <= kMostTransitions);
        EXPECT(cut.together == 1 || cut.parts == 1);
        EXPECT(cut.systems == some.systems && cut.transitions == some.transitions);
        EXPECT(cut.node_types == some.node_types);
        const int64_t receivers = cut.together * ((some.nodes + cut.parts - 1) / cut.parts);
        EXPECT(shape.receivers >= receivers);
        EXPECT(shape.edges >= std::min(cut.together * some.edges, receivers * some.degree()));
        EXPECT(shape.room >= shape.edges * library.edge.modules + shape.receivers && shape.room < kNoRow);
        // enough tiles for the device, where there is as much to do
        EXPECT(cut.tiles() >= std::min<int64_t>(some.systems * some.transitions, 66));
      }
    }
  }
}

// Where systems as large as the largest in each respect fit, those that are smaller in some do.
void check_runs() {
  for (const FusedLibrary& library : libraries()) {
    const HeatBathCosts costs = scoring_costs(library);
    for (HeatBathSizes some : sizes()) {
      if (!fits(costs, some, 101376)) continue;
      for (int64_t* one : {&some.nodes, &some.edges, &some.rows}) {
        const int64_t before = *one;
        for (int64_t smaller = before; smaller > 0; smaller /= 2) {
          *one = smaller;
          EXPECT(fits(costs, some, 101376));
        }
        *one = before;
      }
    }
  }
}

const Check kChecks[] = {{"tiles", check_tiles},   {"parts", check_parts},
                         {"ranges", check_ranges}, {"projection", check_projection},
                         {"cursor", check_cursor}, {"shared_memory", check_shared_memory},
                         {"plan", check_plan},     {"runs", check_runs}};

}  // namespace

int main(int count, char** arguments) { return run_checks(kChecks, count, arguments); }
