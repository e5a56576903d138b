"""What breaks runs, done to them on purpose: kills, full disks, damaged and hostile files."""
