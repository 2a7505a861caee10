"""The Lightning callbacks of our own runs, one job each.

After every training step Lightning calls them in this order, on which exact resume depends:

1. `metrics_writer.MetricsWriter`: the line of the training loss
2. `test_evaluator.TestEvaluator`: the test loss, in lines and blocks
3. the user's own (``callbacks`` in the settings), which may look at and change all of the above
4. `checkpointer.Checkpointer`: after them, so that a checkpoint holds what they did after its step
5. `preemption.Preemption`: leaves a run that was asked to stop; after it nothing of this step may be missing
6. `progress.PhaseProgress`: what the terminal shows
"""
