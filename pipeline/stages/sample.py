"""Stage `sample`: draw the embedded data set into data/sample."""

from pathlib import Path

from pipeline.datasets.sample.drawing import write_sample
from pipeline.params import load_params
from pipeline.stages.run import run_stage

ROOT = Path("data/sample")


def main() -> None:
    """Draw as many scenes as params.yaml asks for."""
    sample = load_params().sample
    write_sample(ROOT, train=sample.train, dev=sample.dev, test=sample.test, seed=sample.seed)
    print(
        f"sample: drew {sample.train} train, {sample.dev} dev and {sample.test} test scenes"
        f" into {ROOT}"
    )


if __name__ == "__main__":
    run_stage(main)
