"""A pair as DICOM: one file per axial slice, and one DICOM segmentation of them, made with highdicom.

Every UID is a hash of the set's identity, the case and the slice, and no date is written, so that the same pair always
gives the same bytes. Slices lie as scanners write them: rows from right to left, columns from front to back.
"""

import io
from collections import Counter
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medgen3d.artifacts import dicom
from medgen3d.artifacts.manifest import SyntheticSetInfo
from medgen3d.artifacts.mark import Mark
from medgen3d.artifacts.provenance import config_hash
from medgen3d.artifacts.storage import Folder
from medgen3d.core.errors import ArtifactError
from medgen3d.core.labels import LabelTable
from medgen3d.core.volume import Volume, as_type

if TYPE_CHECKING:  # heavy, and only used for this format
    from pydicom import Dataset
    from pydicom.uid import UID

_STORAGE = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
_UNSIGNED, _SIGNED = 0, 1
_UTF8 = "ISO_IR 192"
_LABEL_LENGTH = 64
"""Characters that a segment's label may have."""
_DATE, _TIME = "20000101", "000000"  # required by some readers; a real one would change the bytes


def encode(info: SyntheticSetInfo, case_id: str, image: Volume, mask: Volume) -> tuple[list[bytes], bytes]:
    """The files of a pair: one per slice from the feet up, and the segmentation.

    Args:
        info: The set's identity.
        case_id: The case; becomes the patient's id.
        image: In scanner units.
        mask: Original label ids.
    """
    stored, representation, slope, intercept = _as_stored(image.voxels, info.image_dtype)
    uids = _Uids(info, case_id)
    slices = []
    for place in range(len(stored)):
        one = _header(info, case_id, uids, image, place)
        one.PixelRepresentation = representation
        if info.modality == "CT" or (slope, intercept) != (1.0, 0.0):
            one.RescaleSlope, one.RescaleIntercept, one.RescaleType = f"{slope:.10g}", f"{intercept:.10g}", "US"
            if info.modality == "CT":
                one.RescaleType = "HU"
        one.PixelData = np.ascontiguousarray(_turned(stored[place])).tobytes()
        slices.append(one)
    segmentation = _segmentation(info, uids, slices, info.label_table.to_contiguous(mask.voxels.astype(np.int64)))
    for one in slices:
        _mark(one, Mark.of(info, case_id, "image", sha256(one.PixelData).hexdigest()))
    _mark(segmentation, Mark.of(info, case_id, "mask", sha256(segmentation.PixelData).hexdigest()))
    return [_bytes_of(one) for one in slices], _bytes_of(segmentation)


def _mark(made: "Dataset", mark: Mark) -> None:
    """Say that it is synthetic, and by what (DICOM PS3.3 C.12.1: Synthetic Data, Contributing Equipment)."""
    from pydicom import Dataset

    made.SyntheticData = "YES"
    equipment, purpose = Dataset(), Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "109102", "DCM", "Processing Equipment"
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    equipment.Manufacturer, equipment.ManufacturerModelName = "medgen3d", mark.pipeline[:64]
    equipment.SoftwareVersions = mark.version
    equipment.ContributionDescription = mark.text
    made.ContributingEquipmentSequence = [*made.get("ContributingEquipmentSequence", []), equipment]


def decode(folder: Folder, info: SyntheticSetInfo, images: tuple[str, ...], label: str) -> tuple[Volume, Volume]:
    """What `encode` wrote, read back by its names.

    Raises:
        ArtifactError: The segmentation is missing or damaged.
        VolumeFileError: A slice is.
    """
    with TemporaryDirectory() as place:
        for name in images:
            Path(place, Path(name).name).write_bytes(folder.read(name))
        image = dicom.read_series(Path(place)).volume
    return image, _mask_of(folder, info, label, image)


class _Uids:
    """Reproducible UIDs."""

    def __init__(self, info: SyntheticSetInfo, case_id: str) -> None:
        self.identity = [config_hash(info.model_dump(mode="json")), case_id]

    def __call__(self, *what: object) -> "UID":
        from pydicom.uid import generate_uid

        return generate_uid(entropy_srcs=[*self.identity, *map(str, what)])


def _as_stored(image: NDArray[Any], dtype: str) -> tuple[NDArray[np.integer], int, float, float]:
    """16-bit numbers, whether they are signed, and slope and intercept that lead back to the voxels in their type.

    Of an integer type they are rounded as in a NIfTI file, and stored as they are if 16 bits hold them.
    """
    voxels: NDArray[Any] = as_type(image, dtype)
    low, high = float(voxels.min()), float(voxels.max())
    if np.array_equal(np.rint(voxels), voxels):
        for kind, sign in (("<i2", _SIGNED), ("<u2", _UNSIGNED)):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return voxels.astype(kind), sign, 1.0, 0.0
    slope = max(high - low, 1e-6) / np.iinfo(np.uint16).max
    return np.rint((voxels - low) / slope).astype("<u2"), _UNSIGNED, slope, low


def _turned(plane: NDArray[Any]) -> NDArray[Any]:
    """[H, W] with index 0 posterior and left -> index 0 anterior and right, and back."""
    return plane[::-1, ::-1]


def _header(info: SyntheticSetInfo, case_id: str, uids: _Uids, image: Volume, place: int) -> "Dataset":
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    depth_mm, height_mm, width_mm = image.spacing_mm
    _, height, width = image.voxels.shape
    x_mm, y_mm, z_mm, _ = image.affine @ (width - 1, height - 1, place, 1)
    one = Dataset()
    one.SpecificCharacterSet = _UTF8
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = UID(_STORAGE[info.modality])
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = uids("slice", place)
    one.StudyInstanceUID, one.SeriesInstanceUID = uids("study"), uids("image")
    one.FrameOfReferenceUID = uids("frame")
    one.PatientName, one.PatientID = f"SYNTHETIC^{case_id}", case_id
    one.PatientBirthDate = one.PatientSex = one.AccessionNumber = one.ReferringPhysicianName = one.StudyID = ""
    one.StudyDate, one.StudyTime = _DATE, _TIME
    one.Modality, one.Manufacturer = info.modality, "medgen3d"
    one.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if info.modality == "CT" else "OTHER"]
    one.SeriesDescription = f"Synthetic, {info.pipeline_name} version {info.pipeline_version}"[:64]
    one.SeriesNumber, one.InstanceNumber, one.PositionReferenceIndicator = 1, place + 1, ""
    one.ImagePositionPatient = [f"{value:.8g}" for value in (-x_mm, -y_mm, z_mm)]
    one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    one.PixelSpacing, one.SliceThickness = [f"{height_mm:.8g}", f"{width_mm:.8g}"], f"{depth_mm:.8g}"
    one.Rows, one.Columns = height, width
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
    return one


def _segmentation(info: SyntheticSetInfo, uids: _Uids, slices: list["Dataset"], mask: NDArray[np.integer]) -> "Dataset":
    import highdicom as hd
    from pydicom.sr.codedict import codes

    algorithm = hd.AlgorithmIdentificationSequence(
        name="medgen3d", version=str(info.pipeline_version), family=codes.DCM.ArtificialIntelligence
    )
    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=hd.sr.CodedConcept(
                value="91723000", scheme_designator="SCT", meaning="Anatomical structure"
            ),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, label in enumerate(_segment_labels(info.label_table)[1:], start=1)
    ]
    for segment, (label_id, name) in zip(described, list(info.labels.items())[1:], strict=True):
        segment.SegmentDescription = f"Label id {label_id}: {_printable(name)}"[:1024]
    made = hd.seg.Segmentation(
        source_images=slices,
        pixel_array=np.stack([_turned(plane) for plane in mask]).astype(
            np.uint16 if len(described) > 255 else np.uint8
        ),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=uids("segmentation"),
        series_number=2,
        sop_instance_uid=uids("segmentation", "instance"),
        instance_number=1,
        manufacturer="medgen3d",
        manufacturer_model_name="medgen3d",
        software_versions="1",
        device_serial_number="1",
    )
    made.SpecificCharacterSet = _UTF8
    for name in ("ContentDate", "InstanceCreationDate", "SeriesDate"):
        setattr(made, name, _DATE)
    for name in ("ContentTime", "InstanceCreationTime", "SeriesTime"):
        setattr(made, name, _TIME)
    for equipment in made.get("ContributingEquipmentSequence", []):
        equipment.ContributionDateTime = _DATE + _TIME
    for sequence in made.get("DimensionOrganizationSequence", []):
        sequence.DimensionOrganizationUID = uids("dimensions")
    for pointer in made.get("DimensionIndexSequence", []):
        pointer.DimensionOrganizationUID = uids("dimensions")
    return made


def _segment_labels(table: LabelTable) -> list[str]:
    """A label per segment, all different: a backslash would part it in two, and what is too long is cut."""
    names = [_printable(name).replace("\\", "/").strip() for name in table.names]
    cut = Counter(name[:_LABEL_LENGTH] for name in names)
    labels = []
    for label_id, name in zip(table.original_ids, names, strict=True):
        is_own = name and cut[name[:_LABEL_LENGTH]] == 1
        told = "" if is_own else f" ({label_id})"
        labels.append(name[: _LABEL_LENGTH - len(told)].rstrip() + told)
    return [label.strip() for label in labels]


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _mask_of(folder: Folder, info: SyntheticSetInfo, label: str, image: Volume) -> Volume:
    import highdicom as hd
    from pydicom import dcmread

    try:
        found = hd.seg.Segmentation.from_dataset(dcmread(io.BytesIO(folder.read(label))))
        instances = [uid for _, _, uid in found.get_source_image_uids()]
        frames = found.get_pixels_by_source_instance(instances, combine_segments=True, ignore_spatial_locations=True)
    except Exception as error:
        remedy = "Run the same `medgen3d synthesize` again."
        raise ArtifactError(f"{folder}/{label}", f"no readable segmentation ({error})", "DICOM SEG", remedy) from error
    mask = np.stack([_turned(plane) for plane in frames]).astype(np.int64)
    return Volume(voxels=info.label_table.to_original(mask), affine=image.affine)


def _bytes_of(dataset: "Dataset") -> bytes:
    from pydicom import dcmwrite

    content = io.BytesIO()
    dcmwrite(content, dataset, enforce_file_format=True)
    return content.getvalue()
