"""Reports: what folding did, how results compare, how fast they come."""
