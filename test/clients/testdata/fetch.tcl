# Fetch mail with tcllib's pop3. Arguments: port user password home keep|delete.
# From the environment: POP_TLS (plain, stls or implicit), POP_CA (a file).
# Each message goes to home/out/NUMBER as received; home/seen keeps the unique-ids.
package require pop3

lassign $argv port user password home mode
set seen {}
if {[file exists $home/seen]} {
    set in [open $home/seen]
    set seen [read $in]
    close $in
}

# The default mode, which reads as many octets as RETR announces, joins lines once a message has
# byte-stuffed ones: see RetrFast in pop3.tcl.
set open [list pop3::open -retr-mode slow]
if {$env(POP_TLS) in {stls implicit}} {
    package require tls
    tls::init -require 1 -cafile $env(POP_CA)
}
switch $env(POP_TLS) {
    stls { lappend open -stls 1 }
    implicit { lappend open -socketcmd tls::socket }
}
set pop [{*}$open 127.0.0.1 $user $password $port]
foreach {number uid} [pop3::uidl $pop] {
    if {$uid in $seen} continue
    set out [open [format %s/out/%06d $home $number] wb]
    puts -nonewline $out [lindex [pop3::retrieve $pop $number] 0]
    close $out
    lappend seen $uid
    if {$mode eq "delete"} {
        pop3::delete $pop $number
    }
}
pop3::close $pop

set out [open $home/seen w]
puts $out $seen
close $out
