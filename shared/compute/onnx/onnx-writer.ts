/**
 * Writes a finished graph as an ONNX `ModelProto` (onnx.proto of ONNX 1.13: IR version 8, operator set 18), in the
 * protobuf wire format: varints, length-delimited fields and 32-bit floats are all that it needs. Writes only.
 */
import { type Attribute, type ConstantData, type FinishedGraph, microsoftDomain, type NamedShape, onnxTypeNumbers } from './graph.ts';

const irVersion = 8;
const operatorSetVersion = 18;

/** Protobuf wire types. */
const varintField = 0;
const lengthDelimitedField = 2;
const fixed32Field = 5;

/** `AttributeProto.AttributeType` */
const attributeTypes = { float: 1, int: 2, string: 3, ints: 7 } as const;

export function encodeOnnxModel(graph: FinishedGraph): Uint8Array {
  return new Message()
    .integer(1, irVersion)
    .text(2, 'fedstill')
    .message(7, encodeGraph(graph))
    .message(8, operatorSet('', operatorSetVersion))
    .message(8, operatorSet(microsoftDomain, 1))
    .bytes();
}

function operatorSet(domain: string, version: number): Message {
  return new Message().text(1, domain).integer(2, version);
}

function encodeGraph({ nodes, constants, inputs, outputs }: FinishedGraph): Message {
  const message = new Message();
  for (const node of nodes) {
    const encoded = new Message();
    for (const input of node.inputs) encoded.text(1, input);
    for (const output of node.outputs) encoded.text(2, output);
    encoded.text(4, node.operator);
    for (const [name, attribute] of Object.entries(node.attributes)) encoded.message(5, encodeAttribute(name, attribute));
    if (node.domain !== '') encoded.text(7, node.domain);
    message.message(1, encoded);
  }
  message.text(2, 'graph');
  for (const constant of constants) message.message(5, encodeTensor(constant));
  for (const input of inputs) message.message(11, encodeValueInfo(input));
  for (const output of outputs) message.message(12, encodeValueInfo(output));
  return message;
}

function encodeAttribute(name: string, attribute: Attribute): Message {
  const message = new Message().text(1, name);
  if (typeof attribute === 'number') return message.integer(3, attribute).integer(20, attributeTypes.int);
  if (typeof attribute === 'string') return message.text(4, attribute).integer(20, attributeTypes.string);
  if ('float' in attribute) return message.float(2, attribute.float).integer(20, attributeTypes.float);
  for (const integer of attribute) message.integer(8, integer);
  return message.integer(20, attributeTypes.ints);
}

function encodeTensor({ name, shape, type, data }: NamedShape & { readonly data: ConstantData }): Message {
  const message = new Message();
  for (const side of shape) message.integer(1, side);
  return message.integer(2, onnxTypeNumbers[type]).text(8, name).raw(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
}

function encodeValueInfo({ name, shape, type }: NamedShape): Message {
  const sides = new Message();
  for (const side of shape) sides.message(1, new Message().integer(1, side));
  const tensorType = new Message().integer(1, onnxTypeNumbers[type]).message(2, sides);
  return new Message().text(1, name).message(2, new Message().message(1, tensorType));
}

/** One protobuf message: fields are appended in the order of the calls. */
class Message {
  readonly #parts: Uint8Array[] = [];
  #length = 0;

  integer(field: number, value: number): this {
    return this.#append(varint(BigInt(field * 8 + varintField))).#append(varint(BigInt.asUintN(64, BigInt(value))));
  }

  float(field: number, value: number): this {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setFloat32(0, value, true);
    return this.#append(varint(BigInt(field * 8 + fixed32Field))).#append(bytes);
  }

  text(field: number, value: string): this {
    return this.raw(field, new TextEncoder().encode(value));
  }

  message(field: number, value: Message): this {
    return this.raw(field, value.bytes());
  }

  raw(field: number, value: Uint8Array): this {
    return this.#append(varint(BigInt(field * 8 + lengthDelimitedField))).#append(varint(BigInt(value.length))).#append(value);
  }

  bytes(): Uint8Array {
    const result = new Uint8Array(this.#length);
    let offset = 0;
    for (const part of this.#parts) {
      result.set(part, offset);
      offset += part.length;
    }
    return result;
  }

  #append(part: Uint8Array): this {
    this.#parts.push(part);
    this.#length += part.length;
    return this;
  }
}

/** Seven bits a byte, lowest first, the top bit set on all but the last. */
function varint(value: bigint): Uint8Array {
  const bytes: number[] = [];
  for (; value > 0x7fn; value >>= 7n) bytes.push(Number(value & 0x7fn) | 0x80);
  bytes.push(Number(value));
  return Uint8Array.from(bytes);
}
