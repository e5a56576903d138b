"""Tools that know nothing of the method: configuration, files, logs, pictures, devices."""
