"""Reports: what folding did, whether results are right, how long they take."""
