"""Which images are built, and when one is built again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from images.builder import catalogue
from images.builder.catalogue import IMAGES, BuildError, Image, digest, input_files, read_stamp, select, write_stamp
from images.builder.steps import build_context, build_secrets

BY_NAME = {image.name: image for image in IMAGES}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what images are made of, so that files can be changed."""
    source = catalogue.ROOT
    for part in ("images", "pyproject.toml", "uv.lock"):
        copy = shutil.copytree if (source / part).is_dir() else shutil.copy
        copy(source / part, tmp_path / part)
    rules = tmp_path / "dashboards/prometheus/rules.yaml"
    rules.parent.mkdir(parents=True)
    shutil.copy(source / "dashboards/prometheus/rules.yaml", rules)
    for member in ("platform", "operator", "loadtest"):
        (tmp_path / member / "src" / "x").mkdir(parents=True)
        (tmp_path / member / "src" / "x" / "code.py").write_text("one = 1\n")
        for file in ("pyproject.toml", "README.md"):
            shutil.copy(source / member / file, tmp_path / member / file)
    monkeypatch.setattr("images.builder.catalogue.ROOT", tmp_path)
    monkeypatch.setattr("images.builder.steps.ROOT", tmp_path)
    for module in ("catalogue", "steps"):
        monkeypatch.setattr(f"images.builder.{module}.OUT", tmp_path / ".build")
    (tmp_path / ".build").mkdir()
    return tmp_path


def digests(engine: str = "buildah") -> dict[str, str]:
    return {image.name: digest(image, engine) for image in IMAGES}


def changed(before: dict[str, str]) -> set[str]:
    return {name for name, value in digests().items() if value != before[name]}


def test_a_change_of_code_concerns_only_the_images_that_hold_it(checkout: Path) -> None:
    before = digests()
    (checkout / "operator/src/x/code.py").write_text("two = 2\n")
    assert changed(before) == {"fanfold-operator"}
    (checkout / "platform/src/x/code.py").write_text("two = 2\n")
    assert changed(before) == {"fanfold-operator", "fanfold"}


def test_a_change_of_the_lock_concerns_all_python_images_and_no_store(checkout: Path) -> None:
    before = digests()
    with (checkout / "uv.lock").open("a") as lock:
        lock.write("\n")
    assert changed(before) == {"fanfold", "fanfold-operator", "fanfold-loadtest"}


def test_a_changed_alert_concerns_the_image_that_holds_the_rules(checkout: Path) -> None:
    before = digests()
    (checkout / "dashboards/prometheus/rules.yaml").write_text("groups: []\n")
    assert changed(before) == {"prometheus"}


def test_a_changed_entry_point_concerns_its_image_even_if_only_its_mode_changed(checkout: Path) -> None:
    before = digests()
    (checkout / "images/valkey/healthy.sh").chmod(0o644)
    assert changed(before) == {"valkey"}


def test_bytecode_and_time_stamps_change_nothing(checkout: Path) -> None:
    before = digests()
    (checkout / "platform/src/x/__pycache__").mkdir()
    (checkout / "platform/src/x/__pycache__/code.cpython-313.pyc").write_bytes(b"bytecode")
    (checkout / "platform/src/x/code.py").touch()
    assert changed(before) == set()


def test_the_engine_is_part_of_what_an_image_is_made_of(checkout: Path) -> None:
    docker = digests("docker")
    assert all(docker[name] != value for name, value in digests("buildah").items())


def test_an_archive_is_current_only_with_its_stamp_and_all_its_bytes(checkout: Path) -> None:
    image = BY_NAME["valkey"]
    assert read_stamp(image) is None
    image.archive.write_bytes(b"12345")
    write_stamp(image, "digest", "sha256:1")
    stamp = read_stamp(image)
    assert stamp is not None
    assert (stamp["inputs"], stamp["reference"]) == ("digest", image.reference)
    image.archive.write_bytes(b"123")
    assert read_stamp(image) is None


def test_the_build_sees_its_inputs_and_nothing_else(checkout: Path) -> None:
    image = BY_NAME["fanfold-loadtest"]
    (checkout / "secret").write_text("not for images")
    with build_context(image) as context:
        seen = {file.relative_to(context) for file in context.rglob("*") if file.is_file()}
    assert seen == {file.relative_to(checkout) for file in input_files(image)}
    assert Path("loadtest/src/x/code.py") in seen
    assert Path("platform/src/x/code.py") not in seen
    assert not context.exists()


def test_a_missing_input_is_named(checkout: Path) -> None:
    shutil.rmtree(checkout / "loadtest/src")
    with pytest.raises(BuildError, match="fanfold-loadtest: loadtest/src is missing"):
        input_files(BY_NAME["fanfold-loadtest"])


def test_an_unknown_image_is_named_with_those_there_are() -> None:
    with pytest.raises(BuildError, match="no image is called redis; there are fanfold, fanfold-operator"):
        select(["valkey", "redis"])


def test_index_and_certificate_are_lent_as_secrets_and_gone_after_the_build(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = checkout / "bundle.pem"
    bundle.write_text("certificates")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://user:it's@index.example.com/simple")
    with build_secrets() as flags:
        given = dict(item.removeprefix("id=").split(",src=") for item in flags if item != "--secret")
        assert given["ca"] == str(bundle)
        script = Path(given["env"]).read_text()
    assert "export UV_DEFAULT_INDEX='https://user:it'\"'\"'s@index.example.com/simple'\n" in script
    assert "export SSL_CERT_FILE=/run/secrets/ca\n" in script
    assert not Path(given["env"]).exists()


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: str(image.name))
def test_every_image_runs_without_root_on_a_public_base_by_default(image: Image) -> None:
    text = (catalogue.ROOT / "images" / image.folder / "Containerfile").read_text()
    assert "\nUSER 65532:65532\n" in text
    for argument in image.bases:
        assert f"ARG {argument}=docker.io/library/" in text
    assert image.target is None or f"AS {image.target}\n" in text
