module iomodels/go_echo

go 1.19
