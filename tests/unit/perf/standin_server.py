"""A stand-in for the server's command: takes its options, answers `tiny` over both APIs. Run as a process by tests."""

import argparse
import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np

from frontends.grpc.tensorflow_protos import predict_pb2


class _Predict(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        return grpc.unary_unary_rpc_method_handler(_predict)


async def _predict(message: bytes, _context: object) -> bytes:
    request = predict_pb2.PredictRequest.FromString(message)
    response = predict_pb2.PredictResponse()
    response.outputs["output"].CopyFrom(request.inputs["input"])
    values = np.frombuffer(request.inputs["input"].tensor_content, np.float32) + 1
    response.outputs["output"].tensor_content = values.tobytes()
    return bytes(response.SerializeToString())


class _Rest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"predictions": (np.array(body["instances"]) + 1).round(4).tolist()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class _RestServer(ThreadingHTTPServer):
    request_queue_size = 128


async def _serve(port: int, rest_port: int) -> None:
    rest = _RestServer(("127.0.0.1", rest_port), _Rest)
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Predict(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--rest_port", type=int)
    arguments, _ = parser.parse_known_args()
    asyncio.run(_serve(arguments.port, arguments.rest_port))


if __name__ == "__main__":
    main()
