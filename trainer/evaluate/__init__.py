"""What a person looks at to judge a training: grids, loss curves, picture metrics."""
