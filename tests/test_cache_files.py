"""A volume's file: small, exact, and never other voxels than were written, whatever happened to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import blosc2
import numpy as np
import pytest
from scipy import ndimage

from fmct.console.errors import FmctError
from fmct.data.volume_file import Volume, Voxels, check_volume, partitions, read_hu, read_volume, write_volume
from fmct.data.volume_header import LAYER, VolumeHeader, sealed

AFFINE = np.array([[1.5, 0, 0, -11], [0, 1.5, 0, 0.1], [0, 0, 1.5, 3], [0, 0, 0, 1]])
FOLDER = "isotropic-01234567"


def head(side: int = 24, seed: int = 0) -> Voxels:
    """A noisy ball in air."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[:side, :side, :side] - (side - 1) / 2
    hu = ndimage.gaussian_filter(rng.normal(0, 60, (side,) * 3), 1) + 35
    hu[z**2 + y**2 + x**2 > (side * 0.4) ** 2] = -1024
    return hu.astype(np.int16)


def header(path: Path) -> VolumeHeader:
    return VolumeHeader(path.stem, FOLDER, "0" * 64, tuple(AFFINE.ravel()))


def forged(path: Path, array: np.ndarray, meta: dict[str, object] | None = None, **options: object) -> Path:
    """Write a file with a right header and CRC around any array: what somebody could make who means harm."""
    made = blosc2.asarray(array, meta={LAYER: header(path).layer(), **(meta or {})}, **options)
    path.write_bytes(sealed(made.to_cframe()))
    return path


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((24, 24, 24), np.int16),
        ((1, 1, 1), np.int16),
        ((127, 31, 17), np.int16),
        ((7, 400, 500), np.int16),
        ((3, 12, 13, 14), np.float16),
        ((1, 5, 6, 7), np.float16),
    ],
)
@pytest.mark.parametrize("kind", ["noise", "zeros", "air"])
def test_every_shape_comes_back_exactly(
    tmp_path: Path, shape: tuple[int, ...], dtype: type[np.generic], kind: str
) -> None:
    noise = np.random.default_rng(0).integers(-1024, 3071, shape).astype(dtype)
    voxels = {"noise": noise, "zeros": np.zeros(shape, dtype), "air": np.full(shape, -1024, dtype)}[kind]
    path = tmp_path / "s.b2nd"
    stored = write_volume(Volume(voxels, AFFINE, 2.5), path, FOLDER, {"source_gap_mm": np.float64(0.1)})
    read = read_volume(path)
    assert read.dtype == dtype
    assert np.array_equal(read, voxels)
    opened = blosc2.open(str(path))  # any blosc2 user can
    assert np.array_equal(opened[...], voxels)
    assert json.loads(opened.schunk.meta[LAYER])["scan_id"] == "s"
    assert stored.size_bytes == path.stat().st_size
    again = check_volume(path, {FOLDER}, stored.header.checksum)
    assert again == stored
    assert again.header.affine == tuple(AFFINE.ravel())
    assert again.header.facts == {"source_gap_mm": 0.1}


def test_blocks_are_whole_slices_and_large_volumes_have_several_chunks() -> None:
    assert partitions((144, 144, 144), 2) == ((144, 144, 144), (6, 144, 144))
    assert partitions((3, 96, 96, 96), 2) == ((3, 96, 96, 96), (1, 12, 96, 96))
    chunks, blocks = partitions((1024, 1024, 1024), 2)
    assert (chunks, blocks) == ((512, 1024, 1024), (1, 1024, 1024))
    chunks, blocks = partitions((4, 600, 600, 601), 2)
    assert (chunks, blocks) == ((1, 600, 600, 601), (1, 1, 600, 601))


def test_several_chunks_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fmct.data import volume_file

    monkeypatch.setattr(volume_file, "CHUNK_BYTES", 20_000)
    monkeypatch.setattr(volume_file, "BLOCK_BYTES", 3_000)
    for voxels in (head(), np.random.default_rng(0).random((3, 24, 20, 10)).astype(np.float16)):
        write_volume(Volume(voxels, AFFINE), tmp_path / "s.b2nd", FOLDER)
        opened = blosc2.open(str(tmp_path / "s.b2nd"))
        assert opened.schunk.nchunks > 1
        assert np.array_equal(read_volume(tmp_path / "s.b2nd"), voxels)


def test_a_place_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "s.b2nd"
    write_volume(Volume(head(), AFFINE), path, FOLDER)
    batch = np.full((2, 1, 24, 24, 24), 7, np.int16)
    assert read_volume(path, batch[1, 0]).base is not None
    assert np.array_equal(batch[1, 0], head())
    assert (batch[0] == 7).all()
    for wrong in (
        np.empty((24, 24, 23), np.int16),
        np.empty((24,) * 3, np.float16),
        np.empty((24,) * 3, np.int16).T[::2],
    ):
        with pytest.raises(ValueError, match="the volume is int16"):
            read_volume(path, wrong)


def test_no_flipped_bit_gets_through(tmp_path: Path) -> None:
    path, voxels = tmp_path / "s.b2nd", head(12)
    write_volume(Volume(voxels, AFFINE), path, FOLDER)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in range(0, len(content), 3):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with pytest.raises(FmctError, match=r"(?s)the cached volume .*s\.b2nd.*Fix: .*fmct preprocess"):
            read_volume(path)
    for cut in (0, 1, 100, 800, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(FmctError, match="the cached volume"):
            read_volume(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(FmctError, match="the checksum differs"):
        read_volume(path)
    path.write_bytes(content)
    assert np.array_equal(read_volume(path), voxels)


def test_what_is_not_the_scans_volume_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.b2nd"
    with pytest.raises(FmctError, match="is missing"):
        read_volume(path)
    write_volume(Volume(head(), AFFINE), tmp_path / "other.b2nd", FOLDER)
    (tmp_path / "other.b2nd").rename(path)
    with pytest.raises(FmctError, match="is of another scan, other"):
        read_volume(path)
    blosc2.asarray(head(), urlpath=str(path), mode="w")
    with pytest.raises(FmctError, match="carries no checksum"):
        read_volume(path)
    stored = write_volume(Volume(head(), AFFINE), path, FOLDER)
    with pytest.raises(FmctError, match="made with other settings"):
        check_volume(path, {"isotropic-00000000"})
    write_volume(Volume(head(seed=1), AFFINE), path, FOLDER)
    with pytest.raises(FmctError, match="isn't the one that the index lists"):
        check_volume(path, {FOLDER}, stored.header.checksum)
    with pytest.raises(FmctError, match="checksum of its voxels differs"):
        check_volume(forged(path, head(), chunks=(24,) * 3, blocks=(24,) * 3), {FOLDER})
    for array in (np.zeros((4, 4), np.int16), np.zeros((4, 4, 4), np.float32), np.zeros((4, 4, 4), np.float16)):
        with pytest.raises(FmctError, match="is no volume of int16 or float16"):
            read_volume(forged(path, array))
        with pytest.raises(ValueError, match="no volume"):
            write_volume(Volume(array, AFFINE), path, FOLDER)
    with pytest.raises(FmctError, match="isn't packed the way"):
        read_volume(forged(path, head(), chunks=(24, 24, 24), blocks=(8, 8, 8)))
    path.write_bytes(
        sealed(blosc2.SChunk(data=b"1234", contiguous=True, meta={LAYER: header(path).layer()}).to_cframe())
    )
    with pytest.raises(FmctError, match="is no blosc2 array"):
        read_volume(path)
    write_volume(Volume(np.zeros((3, 4, 4, 4), np.float16), AFFINE), path, FOLDER)
    with pytest.raises(FmctError, match="holds windows, no HU"):
        read_hu(path)


def test_a_codec_from_elsewhere_is_never_looked_for(tmp_path: Path) -> None:
    path = forged(tmp_path / "s.b2nd", head(), chunks=(24,) * 3, blocks=(24,) * 3)
    content = bytearray(path.read_bytes())
    chunk = int.from_bytes(content[11:15], "big")  # the frame's header ends where the only chunk begins
    assert content[chunk + 2] >> 5 == 4, "zstd"
    content[chunk + 2] = content[chunk + 2] & 31 | 6 << 5
    content[chunk + 22] = 37  # of a plug-in
    path.write_bytes(sealed(bytes(content)))
    with pytest.raises(FmctError, match="isn't packed the way"):
        read_volume(path)


WATCHED = """
import sys
from pathlib import Path
import fmct.data.volume_file as module
from fmct.console.errors import FmctError
def watch(event, arguments):
    if event.split(".")[0] in {"pickle", "socket", "subprocess", "os.system", "exec", "compile", "urllib", "import"}:
        print("DID", event, arguments)
sys.addaudithook(watch)
for path in sys.argv[1:]:
    try:
        print(module.read_volume(Path(path)).sum())
    except FmctError as error:
        print("refused:", error.what)
"""


def test_reading_runs_and_fetches_nothing(tmp_path: Path) -> None:
    lazy = {"expression": "o0 + __import__('os').getpid()", "operands": {"o0": "elsewhere.b2nd"}}
    remote = {"kind": "c2array", "version": 1, "path": "@public/a.b2nd", "urlbase": "http://127.0.0.1:9/"}
    plain = {"chunks": (24,) * 3, "blocks": (24,) * 3}
    paths = [
        forged(tmp_path / "lazy.b2nd", head(), {"LazyArray": lazy}, **plain),
        forged(tmp_path / "remote.b2nd", head(), {"b2o": remote}, **plain),
        forged(tmp_path / "proxy.b2nd", head(), {"proxy-source": {"local_abspath": "/etc/passwd"}}, **plain),
        forged(tmp_path / "objects.b2nd", head(), {"vlarray": {"version": 1}}, **plain),
    ]
    done = subprocess.run([sys.executable, "-c", WATCHED, *paths], capture_output=True, text=True, check=True)
    assert "DID" not in done.stdout
    assert done.stdout.split() == [str(head().sum())] * 4  # nothing but the voxels that are in the file itself


def test_heads_take_little_space(tmp_path: Path) -> None:
    voxels = head(64)
    stored = write_volume(Volume(voxels, AFFINE), tmp_path / "s.b2nd", FOLDER)
    bits = blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=1, filters=[blosc2.Filter.BITSHUFFLE], typesize=2)
    assert stored.size_bytes < 0.9 * len(blosc2.asarray(voxels, cparams=bits).to_cframe())
    assert stored.size_bytes < 0.4 * voxels.nbytes


def test_spacing_is_told_by_axis() -> None:
    even = Volume(head(), AFFINE)
    assert (even.spacing_mm, even.spacing_xyz_mm) == (1.5, (1.5, 1.5, 1.5))
    assert Volume(head(), np.diag([0.7, 0.7, 0.7, 1])).spacing_mm == 0.7
    uneven = Volume(head(), np.diag([1.5, 2, 2.5, 1]))
    assert np.isnan(uneven.spacing_mm)
    assert uneven.spacing_xyz_mm == (1.5, 2, 2.5)
    turn = np.deg2rad(30)
    oblique = np.array(
        [[np.cos(turn), -np.sin(turn), 0, 0], [np.sin(turn), np.cos(turn), 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]]
    )
    assert Volume(head(), oblique).spacing_xyz_mm == pytest.approx((1, 1, 3))
