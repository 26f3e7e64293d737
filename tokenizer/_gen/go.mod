module spinnet/tokenizer/_gen

go 1.27
