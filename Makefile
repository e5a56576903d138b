# Two commands to know: `make demo` and `make test`. Each makes .venv first, where there is none.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := yamls/demo/rooms.yml
ROOMS := runs/data/rooms

.PHONY: help demo test test-long faults lint clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -r requirements.txt
	touch $@

demo: $(VENV)/installed  ## Render rooms, learn a policy, retrain 8 architectures, test the best: minutes on a laptop
	$(RUN) -m dataloaders.rendered nyu_v2 $(ROOMS) --train 400 --test 60 --height 90 --width 120 --workers 2
	$(RUN) train.py --config $(DEMO) --overwrite
	$(RUN) re-train.py --config $(DEMO) --exp_ids 0 1 2 3 4 5 6 7 --overwrite
	$(RUN) test.py --config $(DEMO) --best --constant

test faults: export OMP_WAIT_POLICY = passive  # threads that wait leave their core to the tests beside them
test: $(VENV)/installed lint  ## Lint, and all tests but the two kinds below: a quarter of an hour on two cores
	$(RUN) -m pytest -q -m "not long and not faults" -n auto --maxprocesses 4 --dist loadfile

test-long: $(VENV)/installed  ## The whole demo, networks compiled with inductor, a benchmark of two processes: ten minutes
	$(RUN) -m pytest -q -m long

faults: $(VENV)/installed  ## Hundreds of kills and full disks, each followed by --resume: three quarters of an hour
	$(RUN) -m pytest -q -rP -m faults -n auto --maxprocesses 4 --dist worksteal

lint: $(VENV)/installed  ## Style and formatting
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean:  ## Remove the environment and what the demo wrote
	rm -rf $(VENV) $(ROOMS) runs/*/demo
