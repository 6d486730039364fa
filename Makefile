# Each target makes what it needs: a virtual environment in .venv with pinned torch.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test lint bench gpu wheel clean

demo: $(STAMP)
	$(BIN)/latentpack demo

test: $(STAMP)
	$(BIN)/python -c "import latentpack.kernels._cpp"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python scripts/bench_coder.py
	$(BIN)/python scripts/bench_lossless.py
	$(BIN)/python scripts/bench_delta.py
	$(BIN)/python scripts/bench_light.py
	$(BIN)/python scripts/bench_fit.py
	$(BIN)/python scripts/bench_image_lossless.py
	$(BIN)/python scripts/bench_audio_lossless.py
	$(BIN)/python scripts/bench_compressai.py
	$(BIN)/python scripts/bench_audio.py
	$(BIN)/python scripts/bench_quantizers.py
	$(BIN)/python scripts/bench_kv.py
	$(BIN)/python scripts/bench_linear.py
	$(BIN)/python scripts/bench_motion.py
	$(BIN)/python scripts/bench_training_state.py

# On a machine with a GPU, with the python that has its torch: nothing is installed. The kernels'
# correctness first, then every benchmark that has GPU rows.
gpu:
	$(PYTHON) -c "from setuptools import setup; setup()" build_ext --inplace
	PYTHONPATH=.import $(PYTHON) -m pytest -q -m gpu
	PYTHONPATH=.import $(PYTHON) scripts/bench_lossless.py --json
	PYTHONPATH=.import $(PYTHON) scripts/bench_linear.py --json
	PYTHONPATH=.import $(PYTHON) scripts/bench_coder.py --json

wheel: $(STAMP)
	$(BIN)/python -m build

clean:
	rm -rf .venv build dist *.egg-info

# Re-made when the dependencies or the C++ sources change.
$(STAMP): pyproject.toml $(wildcard kernels/*.cpp kernels/*.h)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0
	$(BIN)/python -m pip install --quiet --editable .[bench,dev]
	touch $(STAMP)
