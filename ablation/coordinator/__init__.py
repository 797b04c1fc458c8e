"""The one process per study: plans it, has its runs trained, brings what they measure to the tracker."""
