"""pack and unpack --base: single files, chains, folders, wrong bases."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import latentpack
from latentpack.codecs.tensor.digest import digest
from latentpack.tests.command_line import fails, run


def states(count):
    """A model and what it becomes, step by step."""
    generator = torch.Generator().manual_seed(1)
    exact = {"w": torch.randn(300, 40, generator=generator) * 0.02, "b": torch.zeros(40)}
    made = []
    for _ in range(count):
        made.append({name: x.bfloat16() for name, x in exact.items()})
        exact["w"] = exact["w"] + 1e-5 * torch.randn(300, 40, generator=generator)
    return made


@pytest.fixture
def folder(tmp_path):
    for i, state in enumerate(states(4)):
        save_file(state, tmp_path / f"{i}.safetensors", metadata={"step": str(i)})
    return tmp_path


def assert_same_file(a, b):
    assert a.read_bytes() == b.read_bytes()


def test_there_and_back(folder):
    new, old, packed = (folder / name for name in ("1.safetensors", "0.safetensors", "d.lpk"))
    result = run("pack", new, "--base", old, "-o", packed, "--verify")
    assert result.exit_code == 0, result.stderr
    assert packed.stat().st_size < new.stat().st_size / 8
    assert run("unpack", packed, folder / "x.safetensors", "--base", old).exit_code == 0
    assert_same_file(folder / "x.safetensors", new)
    told = run("info", packed).stdout
    assert all(digest(load_file(path)).hex() in told for path in (old, new))


def test_bases_of_every_kind(folder):
    run("pack", folder / "0.safetensors", folder / "0.lpk")
    run("pack", folder / "0.safetensors", "--format", "safetensors")
    torch.save(load_file(folder / "0.safetensors"), folder / "0.pt")
    packed = []
    for name in ("0.safetensors", "0.lpk", "0.packed.safetensors", "0.pt"):
        base, to = folder / name, folder / f"from-{name}.lpk"
        assert run("pack", folder / "1.safetensors", to, "--base", base).exit_code == 0
        assert run("unpack", to, folder / f"{name}.back", "--base", base).exit_code == 0
        assert_same_file(folder / f"{name}.back", folder / "1.safetensors")
        packed.append(to.read_bytes())
    assert len(set(packed)) == 1  # what the base was packed in is of no account


def test_chains(folder):
    first = folder / "0.safetensors"
    chain = [first]
    for i in (1, 2, 3):
        bases = [arg for path in chain[::-1] for arg in ("--base", path)]
        chain.append(folder / f"{i}.lpk")
        assert run("pack", folder / f"{i}.safetensors", chain[-1], *bases).exit_code == 0
    away = folder / "away"
    away.mkdir()
    for path in chain:
        path.rename(away / path.name)
    for bases in ([away], [away / "0.safetensors", away / "2.lpk", away / "1.lpk"]):
        args = [arg for path in bases for arg in ("--base", path)]
        result = run("unpack", away / "3.lpk", folder / "x", "--force", *args)
        assert result.exit_code == 0, result.stderr
        assert_same_file(folder / "x", folder / "3.safetensors")
    (away / "1.lpk").unlink()
    line = fails("unpack", away / "3.lpk", folder / "y", "--base", away)
    assert "2.lpk is a delta from the model with digest" in line
    assert not (folder / "y").exists()


def test_a_folder_may_be_the_base(folder):
    shards = folder / "shards"
    shards.mkdir()
    old = load_file(folder / "0.safetensors")
    for name, x in old.items():
        save_file({name: x}, shards / f"{name}.safetensors")
    packed = folder / "d.lpk"
    assert run("pack", folder / "1.safetensors", packed, "--base", shards).exit_code == 0
    assert run("unpack", packed, folder / "x", "--base", shards).exit_code == 0
    assert_same_file(folder / "x", folder / "1.safetensors")


def test_folders_of_shards(folder):
    old, new, packed = (folder / name for name in ("old", "new", "packed"))
    for where, state in ((old, states(2)[0]), (new, states(2)[1])):
        where.mkdir()
        for name, x in state.items():
            save_file({name: x}, where / f"{name}.safetensors")
        (where / "config.json").write_text("{}")
    assert run("pack", new, packed, "--base", old).exit_code == 0
    result = run("unpack", packed, folder / "again", "--base", old)
    assert result.exit_code == 0, result.stderr
    for path in new.iterdir():
        assert_same_file(folder / "again" / path.name, path)
    assert run("unpack", packed / "w.lpk", folder / "w", "--base", old).exit_code == 0
    assert_same_file(folder / "w", new / "w.safetensors")
    assert "give the base with digest" in fails("unpack", packed, folder / "x")
    assert "the delta was made from" in fails("unpack", packed, folder / "x", "--base", new)
    assert not (folder / "x").exists()


def test_wrong_and_missing_bases(folder):
    old, other, packed = folder / "0.safetensors", folder / "2.safetensors", folder / "d.lpk"
    run("pack", folder / "1.safetensors", packed, "--base", old)
    want, got = (digest(load_file(path)).hex() for path in (old, other))
    line = fails("unpack", packed, folder / "x")
    assert f"a delta from the model with digest {want}; name that with --base" in line
    line = fails("unpack", packed, folder / "x", "--base", other)
    assert want in line and got in line
    line = fails(
        "unpack", packed, folder / "x", "--base", other, "--base", folder / "3.safetensors"
    )
    assert want in line and f"{other} has {got}" in line
    assert not (folder / "x").exists()
    line = fails("pack", old, folder / "y", "--base", other, "--format", "safetensors")
    assert "a delta is a .lpk file" in line
    assert "does not exist" in run("pack", old, folder / "y", "--base", folder / "no").stderr


def test_deltas_that_name_each_other_end(folder):
    from latentpack.codecs.codec import Packet
    from latentpack.codecs.container import Writer

    for name, base, own in (("a", b"2" * 8, b"1" * 8), ("b", b"1" * 8, b"2" * 8)):
        with (folder / f"{name}.lpk").open("wb") as file:
            with Writer(file, 3, {"base": base, "self": own}) as writer:
                writer.write(Packet("w", b""))
    line = fails("unpack", folder / "a.lpk", folder / "x", "--base", folder)
    assert "as a base in turn" in line


def test_open_with_a_base_is_lazy(folder):
    packed = folder / "d.lpk"
    run("pack", folder / "1.safetensors", packed, "--base", folder / "0.safetensors")
    with latentpack.open(packed, base=load_file(folder / "0.safetensors")) as file:
        assert torch.equal(file["w"], load_file(folder / "1.safetensors")["w"])
