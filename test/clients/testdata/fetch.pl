# Fetch mail with Net::POP3. Arguments: port user password home keep|delete.
# From the environment: POP_TLS (plain, stls or implicit), POP_MECHANISM, POP_CA, POP_CERT, POP_KEY (files).
# Each message goes to home/out/NUMBER as received; home/seen keeps the unique-ids.
use strict;
use warnings;
use Net::POP3;

local $SIG{__DIE__} = sub { return if $^S; print STDERR @_; exit 1 };

my ($port, $user, $password, $home, $mode) = @ARGV;
my %seen;
if (open my $in, '<', "$home/seen") {
    chomp(my @uids = <$in>);
    @seen{@uids} = ();
}

my ($tls, $mechanism) = @ENV{ 'POP_TLS', 'POP_MECHANISM' };
my %tls = (SSL_ca_file => $ENV{POP_CA}, SSL_verify_mode => 1);
@tls{ 'SSL_cert_file', 'SSL_key_file' } = @ENV{ 'POP_CERT', 'POP_KEY' } if $ENV{POP_CERT};
my @implicit = $tls eq 'implicit' ? (SSL => 1, %tls) : ();
my $pop = Net::POP3->new('127.0.0.1', Port => $port, Timeout => 60, @implicit) or die "no connection: $@\n";
if ($tls eq 'stls') {
    $pop->starttls(%tls) or die "no TLS: $@\n";
}
if ($mechanism eq '' || $mechanism eq 'PASS') {
    defined $pop->login($user, $password) or die $pop->message;
} elsif ($mechanism eq 'APOP') {
    defined $pop->apop($user, $password) or die $pop->message;
} elsif ($mechanism eq 'itself') {
    $pop->auth($user, $password) or die $pop->message;
} else {
    require Authen::SASL;
    my $sasl = Authen::SASL->new(
        mechanism => $mechanism,
        callback  => { user => $user, authname => '', pass => $password },
    );
    $pop->auth($sasl) or die $pop->message;
}
my $uids = $pop->uidl or die $pop->message;
for my $number (sort { $a <=> $b } keys %$uids) {
    next if exists $seen{ $uids->{$number} };
    my $lines = $pop->get($number) or die $pop->message;
    if ($tls eq 'stls' || $tls eq 'implicit') {
        s/\r\n\z/\n/ for @$lines;    # Net::POP3 does that by itself, but not inside TLS
    }
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
