"""Train runs, alone or in bundles. A bundle passes through these files in order:

bundles           decide which runs are trained together (does not need torch)
trainer           lock the run directories, train the runs that are furthest behind first, and record how each run ended
lockstep          train the runs of a bundle from one step to another with Lightning, one lane each
lightning_module  compute the loss, accumulate and clip gradients, and set up the optimizer and the learning rate
callback          evaluate, save and stop between two steps
dataset           assemble the batches; datamodule passes them to Lightning
"""
