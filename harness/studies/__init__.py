"""Studies: loss coefficients and other settings of a recipe, varied by Optuna, judged on held-out images.

space.py       which settings are varied, and from where to where
study.py       a study and its trials, as plain files
request.py     what a person asks for, as a study
optimise.py    Optuna: what to try next, and which trial to prune
selection.py   is the best of the trials better than the recipe's own settings?
winner.py      the winner as a recipe
report.py      tables, and a page with plots
plots.py       plots as SVG, Optuna's and ours
tracking.py    studies in MLflow, as parents of their trials' runs

The coordinator that runs a study is slurm/coordinator.py.
"""
