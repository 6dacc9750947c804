"""Other systems that hear, measured as QuickComm is: the same speech, the same model, the same cores."""
