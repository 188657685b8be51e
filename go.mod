module dewey

go 1.26.0
