"""What every process needs: settings, logging, time, supervision."""
