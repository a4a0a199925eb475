from medgen3d.training.stage_factory import data_spec


def test_stages_are_told_of_the_deepest_training_case(prepared):
    spec = data_spec(prepared)
    assert (spec.num_labels, spec.plane, spec.spacing_mm, spec.max_depth) == (2, (8, 16), (1.0, 1.0, 1.0), 7)
