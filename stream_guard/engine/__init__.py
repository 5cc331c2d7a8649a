"""Engines that judge: vLLM in this process, and a fixed rule for load tests.

What it must never do: let anything but ``vllm_engine`` import vLLM, which takes seconds and gigabytes.
"""
