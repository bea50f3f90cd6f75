"""Ways of measuring a model: with <SEG> given (`teacher_forced`), and in what the model writes (`generated`)."""
