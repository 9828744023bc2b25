"""Where jobs are carried out; the driver is handed one executor and knows no more of it."""
