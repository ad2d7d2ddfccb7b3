from sklearn_wsl_gpu.estimators import Row

TOUCH = Row("one_pass.Touch", "score_samples")
DOUBLE = Row("one_pass.Double", "transform", in_place="copy", overwrites="transform")
