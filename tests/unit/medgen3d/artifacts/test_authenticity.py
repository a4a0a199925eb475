"""Authenticity: files say what they are, a changed one is told from one as it was made, and a signature holds."""

import gzip

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from medgen3d.artifacts import nifti
from medgen3d.artifacts.authenticity import check_file, read_signing_key, sign_manifest, verify
from medgen3d.artifacts.storage import Folder
from medgen3d.core.errors import ArtifactError, ConfigError
from medgen3d.core.volume import Volume, affine_from_spacing

FILES = {
    "nifti": ("images/syn_00001.nii.gz", "labels/syn_00001.nii.gz"),
    "parquet": ("pairs/syn_00001.parquet",),
    "dicom": ("dicom/syn_00001/image/0003.dcm", "dicom/syn_00001/segmentation.dcm"),
}


@pytest.fixture
def made(make_synthetic, tmp_path):
    return lambda kind="nifti": make_synthetic(tmp_path / kind, format=kind)


def states(findings):
    return {finding.state for finding in findings}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_says_by_itself_who_made_it_and_that_it_is_as_it_was_made(made, kind):
    root = made(kind)
    for name in FILES[kind]:
        finding = check_file(root / name)
        assert finding.state == "as made"
        mark = finding.mark
        assert (mark.synthetic, mark.pipeline, mark.pipeline_version, mark.case_id) == (True, "abdomen", 4, "syn_00001")


def test_other_programs_see_the_mark(made):
    image = nib.load(made() / "images/syn_00001.nii.gz")
    assert bytes(image.header["descrip"]).startswith(b"SYNTHETIC, made by medgen3d")
    (extension,) = image.header.extensions
    assert (extension.get_code(), b'"synthetic":true' in extension.get_content()) == (6, True)
    assert b'"synthetic":true' in pq.read_schema(made("parquet") / FILES["parquet"][0]).metadata[b"medgen3d.mark"]
    root = made("dicom")
    for name in FILES["dicom"]:
        file = pydicom.dcmread(root / name)
        assert file.SyntheticData == "YES"
        assert file.ContributingEquipmentSequence[-1].Manufacturer == "medgen3d"


def test_a_changed_voxel_is_noticed_in_each_format(made):
    root = made()
    path = root / "images/syn_00001.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] ^= 1
    path.write_bytes(gzip.compress(bytes(content)))
    assert check_file(path).state == "changed"
    path = made("dicom") / FILES["dicom"][0]
    file = pydicom.dcmread(path)
    file.PixelData = bytes(len(file.PixelData))
    file.save_as(path)
    assert check_file(path).state == "changed"
    path = made("parquet") / FILES["parquet"][0]
    table = pq.read_table(path)
    row = table.to_pylist()[0]
    row["mask"] = bytes(len(row["mask"]))
    pq.write_table(type(table).from_pylist([row], schema=table.schema), path)
    assert check_file(path).state == "changed"


def test_the_same_voxels_saved_by_another_program_are_the_same(made):
    path = made() / "labels/syn_00001.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine, image.header), path)
    assert check_file(path).state == "as made"


def test_voxels_that_were_moved_are_a_change(made):
    path = made() / "labels/syn_00001.nii.gz"
    image = nib.load(path)
    image.affine[0, 3] += 1.0
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine, image.header), path)
    finding = check_file(path)
    assert (finding.state, finding.note) == ("changed", "its voxels do not lie where they did")


def test_what_is_not_ours_or_no_image_is_said(tmp_path):
    nifti.write(
        tmp_path / "a.nii.gz", Volume(voxels=np.zeros((2, 3, 4), np.uint8), affine=affine_from_spacing((1, 1, 1)))
    )
    (tmp_path / "b.dcm").write_bytes(b"nothing")
    (tmp_path / "c.parquet").write_bytes(b"nothing")
    found = {
        finding.file.rpartition("/")[2]: finding.state
        for finding in verify([str(p) for p in sorted(tmp_path.iterdir())])
    }
    assert found == {"a.nii.gz": "not ours", "b.dcm": "unreadable", "c.parquet": "unreadable"}


@pytest.mark.parametrize("kind", FILES)
def test_a_set_is_held_to_its_manifest(made, kind):
    root = made(kind)
    found = verify([str(root)])
    assert states(found) == {"as made"}
    assert found[1].note == "drawn by abdomen version 4, seed 77; 4 cases"
    changed = root / FILES[kind][0]
    changed.write_bytes(changed.read_bytes() + b" ")
    changed.with_name(f"other{changed.suffix}").write_bytes(b"x")
    found = {
        finding.file.rpartition("/")[2]: finding.state for finding in verify([str(root)]) if finding.state != "as made"
    }
    assert sorted(found.values()) == ["changed", "not ours"]


def test_a_folder_that_is_no_set_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"manifest\.parquet"):
        verify([str(tmp_path)])


def keys(folder, name):
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    private.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_a_signed_manifest_holds_for_its_key_alone_and_as_long_as_it_is_unchanged(made, tmp_path):
    root, (private, public), (_, another) = made(), keys(tmp_path, "ours"), keys(tmp_path, "theirs")
    assert "not signed" in verify([str(root)], public)[0].note
    assert verify([str(root)], public)[0].state == "not ours"
    sign_manifest(Folder.of(root), read_signing_key(private))
    assert states(verify([str(root)], public)) == states(verify([str(root)])) == {"as made"}
    assert verify([str(root)], another)[0].state == "not ours"
    manifest = root / "manifest.parquet"
    table = pq.read_table(manifest)
    pq.write_table(table.slice(0, 2), manifest)
    assert verify([str(root)], public)[0].note == "the manifest was changed since it was signed"


def test_a_signature_of_nonsense_is_unreadable(made, tmp_path):
    root, (private, public) = made(), keys(tmp_path, "ours")
    sign_manifest(Folder.of(root), read_signing_key(private))
    text = (root / "manifest.sig").read_text()
    for damaged in ("", "{}", text.replace("Ed25519", "none"), text.replace("=", "!")):
        (root / "manifest.sig").write_text(damaged)
        assert verify([str(root)], public)[0].state == "unreadable"


def test_a_key_that_others_can_read_or_that_is_none_is_refused(tmp_path):
    private, public = keys(tmp_path, "ours")
    private.chmod(0o640)
    with pytest.raises(ConfigError, match=r"others can read .* close it with chmod 600"):
        read_signing_key(private)
    public.chmod(0o600)
    for wrong in (public, tmp_path / "missing.pem"):
        with pytest.raises(ConfigError, match="signing_key"):
            read_signing_key(wrong)
