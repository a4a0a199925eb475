"""Published weights are too large for tests: fresh networks are saved under the published names instead."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from medgen3d.core.errors import ArtifactError, DataError
from medgen3d.core.hashing import sha256_of
from medgen3d.evaluation.extractors import JudgeExtractor, pretrained_extractor, view_features
from medgen3d_stages.monai_parts import ResNetFeatures

IMAGE = np.random.default_rng(0).uniform(-1, 1, size=(32, 48, 16)).astype(np.float32)
LAYERS = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}  # as torchvision orders them


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def tensors_of(model, spatial_dims, in_channels):
    torch.manual_seed(0)
    network = ResNetFeatures(model, pretrained=False, spatial_dims=spatial_dims, in_channels=in_channels)
    return {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in network.state_dict().items()
    }


@pytest.fixture(scope="module")
def medicalnet():
    return tensors_of("resnet10", 3, 1)


@pytest.fixture(scope="module")
def radimagenet():
    return tensors_of("resnet50", 2, 3)


def published(tensors):
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def medicalnet_file(medicalnet, tmp_path_factory):
    path = tmp_path_factory.mktemp("medicalnet") / "resnet_10_23dataset.pth"
    torch.save({"state_dict": published(medicalnet)}, path)
    return path


def test_features_of_a_view_are_means_over_its_slices():
    feature_map = np.arange(2 * 2 * 3 * 4, dtype=np.float32).reshape(2, 2, 3, 4)
    found = view_features(feature_map)

    assert {view: features.shape for view, features in found.items()} == {
        "axial": (2, 2),
        "coronal": (3, 2),
        "sagittal": (4, 2),
    }
    np.testing.assert_allclose(found["axial"][0], [5.5, 29.5])  # means of 0..11 and 24..35
    np.testing.assert_allclose(found["sagittal"][:, 0], [10, 11, 12, 13])  # 0, 4, .., 20 and so on


def test_the_judges_extractor_describes_by_its_feature_map():
    class Brightness:
        name, weights_sha256 = "brightness", "b" * 64

        def features(self, image):
            return image[None]

    found = JudgeExtractor(Brightness())

    assert (found.name, found.weights_sha256) == ("brightness", "b" * 64)
    np.testing.assert_allclose(found.features(IMAGE)["coronal"][:, 0], IMAGE.mean(axis=(0, 2)), atol=1e-6)


def test_medicalnet_is_read_under_its_published_names_and_keeps_an_eighth_of_the_resolution(
    medicalnet, medicalnet_file
):
    assert {"module.conv1.weight", "module.layer4.0.downsample.1.running_var"} <= published(medicalnet).keys()

    extractor = pretrained_extractor("medicalnet-resnet10", medicalnet_file)
    found = extractor.features(IMAGE)

    assert (extractor.name, extractor.weights_sha256) == ("medicalnet-resnet10", sha256_of(medicalnet_file))
    assert {view: features.shape for view, features in found.items()} == {
        "axial": (4, 512),
        "coronal": (6, 512),
        "sagittal": (2, 512),
    }


def test_medicalnet_sees_standardised_volumes(medicalnet_file):
    extractor = pretrained_extractor("medicalnet-resnet10", medicalnet_file)

    found, brighter = (extractor.features(image)["axial"] for image in (IMAGE, 0.5 * IMAGE + 0.3))
    np.testing.assert_allclose(found, brighter, rtol=1e-3, atol=1e-4)
    assert np.isfinite(extractor.features(np.zeros_like(IMAGE))["axial"]).all()


def test_shortcuts_without_weights_keep_the_resolution_as_well(tmp_path):
    tensors = published(tensors_of("resnet18", 3, 1))
    assert not any("downsample" in name for name in tensors)
    torch.save(tensors, tmp_path / "resnet_18.pth")

    assert pretrained_extractor("medicalnet-resnet18", tmp_path / "resnet_18.pth").features(IMAGE)["axial"].shape == (
        4,
        512,
    )


def test_radimagenets_numbered_layers_are_those_that_torchvision_names(radimagenet, tmp_path):
    numbered = {}
    for name, tensor in radimagenet.items():
        layer, _, rest = name.partition(".")
        numbered[f"backbone.{LAYERS[layer]}.{rest}"] = tensor
    torch.save(numbered, tmp_path / "ResNet50.pt")
    save_file(radimagenet | {"fc.weight": torch.zeros(5, 2048)}, tmp_path / "named.safetensors")

    by_number, by_name = (
        pretrained_extractor("radimagenet-resnet50", tmp_path / file) for file in ("ResNet50.pt", "named.safetensors")
    )

    weights = by_name.network.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in by_number.network.state_dict().items())
    assert {view: features.shape for view, features in by_number.features(IMAGE[:1, :18, :2]).items()} == {
        "axial": (1, 2048),
        "coronal": (16, 2048),  # of 18 slices
        "sagittal": (2, 2048),
    }


def test_weights_of_another_network_are_refused_with_the_first_tensor_that_differs(medicalnet_file):
    with pytest.raises(
        ArtifactError, match=r"found no tensor layer1\.1\.bn1\.bias, expected one .* medicalnet-resnet18"
    ):
        pretrained_extractor("medicalnet-resnet18", medicalnet_file)


def test_a_tensor_of_another_shape_or_with_nan_is_refused(medicalnet, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(medicalnet | {"bn1.bias": torch.zeros(3)}, path)
    with pytest.raises(ArtifactError, match=r"shape \[3\] of tensor bn1\.bias, expected shape \[64\]"):
        pretrained_extractor("medicalnet-resnet10", path)

    torch.save(medicalnet | {"bn1.bias": torch.full((64,), torch.nan)}, path)
    with pytest.raises(ArtifactError, match=r"NaN or infinite numbers in tensor bn1\.bias"):
        pretrained_extractor("medicalnet-resnet10", path)


class Malicious:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights"])
def test_an_unreadable_file_is_refused_in_one_sentence(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match="an unreadable file"):
        pretrained_extractor("medicalnet-resnet10", tmp_path / name)


def test_objects_in_a_file_are_refused_and_never_made(tmp_path, capsys):
    torch.save({"conv1.weight": Malicious()}, tmp_path / "weights.pt")
    with pytest.raises(ArtifactError, match="an unreadable file"):
        pretrained_extractor("medicalnet-resnet10", tmp_path / "weights.pt")
    assert capsys.readouterr().out == ""


def test_a_file_without_tensors_a_missing_one_and_a_huge_one_are_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    with (tmp_path / "huge.pt").open("wb") as file:
        file.truncate(2**30 + 1)  # sparse: it takes no room
    for name, found in (("list.pt", "other things than tensors"), ("none.pt", "no such file"), ("huge.pt", "at most")):
        with pytest.raises(ArtifactError, match=found):
            pretrained_extractor("medicalnet-resnet10", tmp_path / name)


def test_an_unknown_kind_is_refused_with_those_that_are_known(medicalnet_file):
    with pytest.raises(DataError, match=r"'inception' is no known .* medicalnet-resnet10, .* radimagenet-resnet50"):
        pretrained_extractor("inception", medicalnet_file)
