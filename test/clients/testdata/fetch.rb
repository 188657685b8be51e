# Fetch mail with Net::POP3. Arguments: port user password home keep|delete.
# Each message goes to home/out/NUMBER as received; home/seen keeps the unique-ids.
require "net/pop"

port, user, password, home, mode = ARGV
seen = File.exist?("#{home}/seen") ? File.readlines("#{home}/seen", chomp: true) : []

begin
  Net::POP3.start("127.0.0.1", Integer(port), user, password) do |pop|
    pop.mails.each do |mail|
      next if seen.include?(mail.unique_id)
      File.binwrite(format("%s/out/%06d", home, mail.number), mail.pop)
      seen << mail.unique_id
      mail.delete if mode == "delete"
    end
  end
rescue Net::ProtocolError => e
  warn e.message
  exit 1
end

File.write("#{home}/seen", seen.join("\n"))
