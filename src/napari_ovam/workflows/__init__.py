"""What a person does with all of it: propose, optimize, improve, demonstrate."""
