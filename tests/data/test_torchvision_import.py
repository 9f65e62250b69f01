"""torchvision is imported late, and mended only where that is what it needs."""

import subprocess
import sys
import textwrap
from pathlib import Path

from kempe_nb import data


def test_torchvision_is_imported_late_and_mended_only_for_its_missing_operators(tmp_path):
    def package(folder, source):
        (tmp_path / folder / "torchvision").mkdir(parents=True)
        (tmp_path / folder / "torchvision" / "__init__.py").write_text(source)

    package("broken", "raise RuntimeError('another reason')")
    package(
        "unfitting",
        "import torch\n"
        "torch.library.register_fake('torchvision::nms')(lambda *tensors: tensors[0])\n"
        "torch.library.register_fake('torchvision::qnms')(lambda *tensors: tensors[0])\n",
    )
    script = f"""
        import sys
        from kempe_nb import data
        assert not {{"torchvision", "sklearn"}} & set(sys.modules)
        sys.path.insert(0, {str(tmp_path / "broken")!r})
        try:
            data.import_torchvision()
        except RuntimeError as error:
            assert str(error) == "another reason", error
        else:
            raise SystemExit("the error was swallowed")
        sys.path[0] = {str(tmp_path / "unfitting")!r}
        try:
            import torchvision
        except RuntimeError as error:
            assert "nms does not exist" in str(error), error
        else:
            raise SystemExit("this package should not be importable unmended")
        first = data.import_torchvision()
        assert first.__file__.startswith(sys.path[0])
        assert data.import_torchvision() is first
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        cwd=Path(data.__file__).parents[3],
    )
    assert run.returncode == 0, run.stderr
