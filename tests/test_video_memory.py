"""Long videos take no more memory than short ones, in both directions."""

import os
import subprocess
import sys
from pathlib import Path

import av
import pytest

import latentpack

SIZE = (320, 240)  # 115 kB a frame: a thousand of them would be seen
FEW, MANY = 60, 900
GROWTH = (
    24 << 20
)  # bytes by which the peak may grow, of which a leak would be several times as many

# The child codes and decodes a short film, then a long one, and says its peak after each.
CHILD = """
import resource, sys
from latentpack.codecs import registry
from latentpack.scripts.encode import encode
from latentpack.scripts.decode import decode
from latentpack.tests import video_double

registry.CODECS[200] = "video/shallow"
sys.modules["latentpack.codecs.video.shallow"] = video_double
for name in ("few", "many"):
    encode([f"{name}.mkv", "--codec", "video/shallow"], standalone_mode=False)
    decode([f"{name}.lpk", "-o", f"{name}.y4m"], standalone_mode=False)
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def film(path, count):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(count):
            frame = av.VideoFrame(*SIZE, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([number % 200]) * plane.buffer_size)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are in kB on Linux only")
def test_memory_does_not_grow_with_the_length(tmp_path):
    film(tmp_path / "few.mkv", FEW)
    film(tmp_path / "many.mkv", MANY)
    here = str(Path(latentpack.__file__).absolute().parents[1])
    environment = os.environ | {"PYTHONPATH": here}
    command = [sys.executable, "-c", CHILD]
    child = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    few, many = (int(line.split()[1]) for line in child.stdout.splitlines() if "peak" in line)
    assert (many - few) * 1024 < GROWTH, (few, many)
    assert (tmp_path / "many.y4m").stat().st_size > MANY * 115_200
