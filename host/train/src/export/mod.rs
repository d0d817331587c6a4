//! Results in the forms that others load: safetensors folders, GGUF files, PEFT adapters, merged weights.
