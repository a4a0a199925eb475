import re

import pytest

from medgen3d.core.errors import ArtifactError, RegistryError
from medgen3d.registry.tracking import start_run
from medgen3d.registry.versions import (
    add_version,
    check_name,
    fetch,
    find_version,
    list_models,
    list_versions,
    set_alias,
)


@pytest.fixture
def add(tracking, tmp_path):
    """add(model, content): a version with one file."""

    def add_one(model="toy.refiner", content="one", run_id=None):
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        (folder / "file.txt").write_text(content)
        run_id = run_id or start_run(tracking, "toy", "x", {}, {})
        return add_version(tracking, model, folder, run_id, {"colour": "red"}, decisive=("file.txt",))

    return add_one


@pytest.mark.parametrize("name", ["hippocampus", "Task04_Hippocampus", "a", "0-1", "_x"])
def test_names_of_letters_digits_underscores_and_dashes_are_accepted(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "a.b", "a@b", "a/b", "a b", "a\n", "über", "' or 1=1"])
def test_other_names_are_refused(name):
    with pytest.raises(RegistryError, match=re.escape(f"letters, digits, _ and - only, got {name!r}")):
        check_name(name)


def test_versions_count_from_one_and_carry_tags_run_and_files(tracking, add):
    run_id = start_run(tracking, "toy", "x", {}, {})
    assert [add().number, add(run_id=run_id, content="two").number, add(model="toy.pipeline").number] == [1, 2, 1]
    first, second = list_versions(tracking, "toy.refiner")
    assert second.run_id == run_id
    assert second.tags["colour"] == "red"
    assert (fetch(tracking, first) / "file.txt").read_text() == "one"
    assert (fetch(tracking, second) / "file.txt").read_text() == "two"


def test_a_hash_tag_is_sha256_of_the_file(add):
    # sha256("abc"), from FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert add(content="abc").sha256 == {"file.txt": expected}


def test_a_repetition_of_the_same_run_makes_no_second_version(tracking, add):
    run_id = start_run(tracking, "toy", "x", {}, {})
    assert add(run_id=run_id).number == add(run_id=run_id).number == 1
    assert len(tracking.client().search_logged_models(["1"])) == 1


def test_other_files_or_another_run_make_a_new_version(tracking, add):
    run_id = start_run(tracking, "toy", "x", {}, {})
    assert [add(run_id=run_id).number, add(run_id=run_id, content="two").number, add().number] == [1, 2, 3]


def test_a_version_is_found_by_number_by_alias_and_as_the_latest(tracking, add):
    one, two, three = add(), add(), add()
    set_alias(tracking, two, "champion")
    assert find_version(tracking, "toy.refiner", "1").number == one.number
    assert find_version(tracking, "toy.refiner", "champion").number == two.number
    assert find_version(tracking, "toy.refiner", "latest").number == three.number


def test_the_latest_of_eleven_is_the_eleventh(tracking, add):
    first = add()
    for _ in range(10):
        tracking.client().create_model_version(first.model, first.location, first.run_id, await_creation_for=0)
    assert find_version(tracking, first.model, "latest").number == 11


def test_an_alias_moves(tracking, add):
    one, two = add(), add()
    set_alias(tracking, one, "champion")
    set_alias(tracking, two, "champion")
    assert [version.aliases for version in list_versions(tracking, "toy.refiner")] == [(), ("champion",)]


def test_an_unknown_model_is_refused_with_a_list_of_those_that_exist(tracking, add):
    with pytest.raises(RegistryError, match=r"has no toy.refiner; it has nothing yet$"):
        find_version(tracking, "toy.refiner", "latest")
    add(model="toy.refiner")
    add(model="brain.refiner")
    with pytest.raises(RegistryError, match=r"has no toi.refiner; it has brain.refiner, toy.refiner$"):
        find_version(tracking, "toi.refiner", "latest")


@pytest.mark.parametrize("which", ["4", "campion", "0", "-1"])
def test_an_unknown_version_or_alias_is_refused_with_a_list_of_those_that_exist(tracking, add, which):
    add()
    set_alias(tracking, add(), "champion")
    expected = (
        f"toy.refiner has no version or alias '{which}'; it has the versions 1, 2 and the aliases latest, champion (2)"
    )
    with pytest.raises(RegistryError) as caught:
        find_version(tracking, "toy.refiner", which)
    assert str(caught.value) == expected


def test_models_are_listed_by_the_end_of_their_names_beyond_one_page(tracking):
    client = tracking.client()
    for index in range(120):  # MLflow's pages hold 100
        client.create_registered_model(f"d{index:03}.pipeline")
    client.create_registered_model("d000.refiner")
    assert list_models(tracking, ".pipeline") == [f"d{index:03}.pipeline" for index in range(120)]


def test_a_version_on_a_local_disk_is_not_copied(tracking, add):
    folder = fetch(tracking, add())
    assert folder.is_relative_to(tracking.artifact_root)


def test_a_changed_or_missing_file_is_named(tracking, add):
    version = add()
    path = fetch(tracking, version) / "file.txt"
    path.write_text("changed")
    with pytest.raises(ArtifactError, match=r"file.txt: found SHA-256 .* It belongs to toy.refiner version 1"):
        fetch(tracking, version)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"file.txt: found no such file, expected SHA-256"):
        fetch(tracking, version)
