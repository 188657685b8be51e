# Fetch mail with Net::POP3. Arguments: port user password home keep|delete.
# Each message goes to home/out/NUMBER as received; home/seen keeps the unique-ids.
use strict;
use warnings;
use Net::POP3;

local $SIG{__DIE__} = sub { print STDERR @_; exit 1 };

my ($port, $user, $password, $home, $mode) = @ARGV;
my %seen;
if (open my $in, '<', "$home/seen") {
    chomp(my @uids = <$in>);
    @seen{@uids} = ();
}

my $pop = Net::POP3->new('127.0.0.1', Port => $port, Timeout => 60) or die "no connection: $@\n";
defined $pop->login($user, $password) or die $pop->message;
my $uids = $pop->uidl or die $pop->message;
for my $number (sort { $a <=> $b } keys %$uids) {
    next if exists $seen{ $uids->{$number} };
    my $lines = $pop->get($number) or die $pop->message;
    open my $out, '>:raw', sprintf('%s/out/%06d', $home, $number) or die $!;
    print $out @$lines or die $!;
    close $out or die $!;
    $seen{ $uids->{$number} } = 1;
    if ($mode eq 'delete') {
        $pop->delete($number) or die $pop->message;
    }
}
$pop->quit or die $pop->message;

open my $out, '>', "$home/seen" or die $!;
print $out "$_\n" for sort keys %seen;
close $out or die $!;
