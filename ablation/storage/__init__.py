"""What lies on disks and in databases: the state folder, run folders, locks, addresses."""
