"""What the example clients share.

The clients are run as files (`python examples/clients/get_model_status.py`), so Python finds this package beside them,
wherever the directory lies; it imports nothing of the server.

    a client ─▶ options      its flags
             ─▶ serving_grpc or serving_rest ─▶ answers      what a server said, the same for both APIs
             ─▶ datasets or pictures ─▶ benchmark ─▶ report, progress      what is printed

`serving_grpc` alone needs grpcio and tensorflow-serving-api, `serving_rest` alone needs requests, `pictures` Pillow.
"""
