"""What lies on disk: typed rows, results, folders and their locks; neither torch nor Optuna."""
