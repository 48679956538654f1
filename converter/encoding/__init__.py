"""Byte encodings that formats share: the pickle machine, zip archives, strict JSON, safetensors, protocol buffers."""
