module dewey-pam

go 1.26.0
