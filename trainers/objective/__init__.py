"""What training maximises: advantages of groups of samples, and the losses of the three stages."""
