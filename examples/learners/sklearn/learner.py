"""An organisation's own model in assisted learning, with scikit-learn, as docs/bring-your-own-learner.md describes.

The program is started for one task, in a folder that holds everything, and ends. Put your own model into make().
"""

import json
import os
import pickle

import numpy as np
from sklearn.ensemble import RandomForestRegressor


def make(task):
    """A model for targets of one or more columns; it must take NaN, or impute it. Leaves of 20 rows leave something to learn."""
    return RandomForestRegressor(100, min_samples_leaf=min(20, max(1, task["rows"] // 20)), random_state=task["seed"] % 2**32)


def main():
    with open(os.environ["COHORT_TASK"]) as f:
        task = json.load(f)
    if task["version"] != 1:
        raise SystemExit(f"this learner knows version 1 of tasks, not {task['version']}")
    x = np.load(task["features"])
    if task["task"] == "fit":
        y = np.load(task["targets"])
        w = np.load(task["weights"]) if "weights" in task else None
        model = make(task).fit(x, y[:, 0] if y.shape[1] == 1 else y, sample_weight=w)
        with open(task["model"], "wb") as f:
            pickle.dump(model, f)
    elif task["task"] == "predict":
        with open(task["model"], "rb") as f:
            model = pickle.load(f)  # what this program wrote itself, kept by this organisation
        np.save(task["predictions"], model.predict(x))
    else:
        raise SystemExit(f"this learner fits and predicts; it cannot {task['task']!r}")


if __name__ == "__main__":
    main()
