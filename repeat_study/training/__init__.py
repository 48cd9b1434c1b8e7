"""Train runs, alone or in bundles. A bundle passes through these files in order:

bundles           decide which runs are trained together (does not need torch)
trainer           lock the run directories, train the runs that are furthest behind first, and record how each run ended
lockstep          train a bundle's runs, one lane each, from one step to another with Lightning
lightning_module  compute the loss, accumulate and clip gradients, and set up the optimizer and the learning rate
callback          evaluate, save and stop between steps
dataset           assemble the batches; datamodule passes them to Lightning
"""
