"""Runs a bundle's networks for another process: Java's DataOutputStream on both pipes."""

import json
import struct
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

FOLDER, IN, OUT = Path(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer
BUNDLE = json.loads((FOLDER / "bundle.json").read_text())


def opened(name: str) -> Interpreter:
    interpreter = Interpreter(str(FOLDER / BUNDLE[name]["file"]))
    interpreter.allocate_tensors()
    return interpreter


def run(interpreter: Interpreter, values: np.ndarray, about: dict) -> dict[str, np.ndarray]:
    shape, dtype = (1, *about["input"]["shape"]), about["input"]["dtype"]
    tensor = values.reshape(shape).astype(dtype)
    if "signature" in about:
        return interpreter.get_signature_runner(about["signature"])(
            **{about["input"]["name"]: tensor}
        )
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], tensor)
    interpreter.invoke()
    details = interpreter.get_output_details()
    return {each["name"]: interpreter.get_tensor(each["index"]) for each in details}


def main() -> None:
    networks = {name: opened(name) for name in ("detector", "check", "network")}
    while length := IN.read(2):
        name = IN.read(*struct.unpack(">H", length)).decode()
        (count,) = struct.unpack(">i", IN.read(4))
        outputs = run(networks[name], np.frombuffer(IN.read(4 * count), ">f4"), BUNDLE[name])
        OUT.write(struct.pack(">i", len(outputs)))
        for key, array in outputs.items():
            content = array.astype(">f4").tobytes()
            OUT.write(struct.pack(">H", len(key)) + key.encode() + struct.pack(">i", len(content)))
            OUT.write(content)
        OUT.flush()


if __name__ == "__main__":
    main()
