# Fetch mail with Net::POP3. Arguments: port user password home keep|delete.
# From the environment: POP_TLS (plain or implicit), POP_MECHANISM (PASS or APOP), POP_CA (a file).
# Each message goes to home/out/NUMBER as received; home/seen keeps the unique-ids.
require "net/pop"

port, user, password, home, mode = ARGV
seen = File.exist?("#{home}/seen") ? File.readlines("#{home}/seen", chomp: true) : []

begin
  pop3 = Net::POP3.new("127.0.0.1", Integer(port), ENV["POP_MECHANISM"] == "APOP")
  if ENV["POP_TLS"] == "implicit"
    pop3.enable_ssl({ verify_mode: OpenSSL::SSL::VERIFY_PEER, ca_file: ENV["POP_CA"] })
  end
  pop3.start(user, password) do |pop|
    pop.mails.each do |mail|
      next if seen.include?(mail.unique_id)
      File.binwrite(format("%s/out/%06d", home, mail.number), mail.pop)
      seen << mail.unique_id
      mail.delete if mode == "delete"
    end
  end
rescue Net::ProtocolError, OpenSSL::SSL::SSLError => e
  warn e.message
  exit 1
end

File.write("#{home}/seen", seen.join("\n"))
