"""Training: from declared runs to trained ones.

A bundle's way, one file after the other:

bundles           which runs are trained together (needs no torch)
trainer           claim the run directories, find the step each run has reached, train the furthest behind, record how each ended
lockstep          train the runs of a bundle from one step to another, one lane each, with Lightning
lightning_module  loss, accumulation, clipping, optimizer, learning rate
callback          what happens between two steps: evaluate, save, stop
dataset           the batches; datamodule hands them to Lightning
"""
