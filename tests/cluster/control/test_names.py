from steersman.cluster.control import CONTROLLERS


def test_every_controller_is_found_under_its_own_name():
    assert {name: spec.name for name, spec in CONTROLLERS.items()} == {name: name for name in CONTROLLERS}
    assert len(CONTROLLERS) == 24
