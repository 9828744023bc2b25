"""From a budget to a choice: candidates, runs, store, driver."""
